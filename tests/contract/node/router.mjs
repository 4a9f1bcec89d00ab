// node router.mjs < REQUEST: run queries with Apollo's gateway over running subgraphs. It composes their SDL and plans
// each query. REQUEST is JSON: `subgraphs` (URLs by name), `headers` to pass on, and `queries`, each with its
// `variables`. Prints a JSON array with one response for each query.
import { text } from 'node:stream/consumers';
import { ApolloGateway, IntrospectAndCompose, RemoteGraphQLDataSource } from '@apollo/gateway';
import { ApolloServer } from '@apollo/server';

const { subgraphs, headers, queries } = JSON.parse(await text(process.stdin));

const server = new ApolloServer({
  gateway: new ApolloGateway({
    supergraphSdl: new IntrospectAndCompose({
      subgraphs: Object.entries(subgraphs).map(([name, url]) => ({ name, url })),
      introspectionHeaders: headers,
    }),
    buildService: ({ url }) =>
      new RemoteGraphQLDataSource({
        url,
        willSendRequest({ request }) {
          Object.entries(headers).forEach(([name, value]) => request.http.headers.set(name, value));
        },
      }),
  }),
  logger: { debug() {}, info() {}, warn: console.error, error: console.error },
});
await server.start();
const answers = [];
for (const { query, variables } of queries) {
  const { body } = await server.executeOperation({ query, variables });
  answers.push(body.singleResult);
}
await server.stop();
console.log(JSON.stringify(answers));
