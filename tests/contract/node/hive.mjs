// node hive.mjs < REQUEST: run operations with Hive Gateway over running subgraphs. It composes their SDL and plans each
// operation. REQUEST is JSON: `gateway` (URL of the merged graph), `subgraphs` (URLs by name), `headers` to pass on,
// `queries` and `subscriptions`, each with its `variables`. Prints JSON: the responses to the queries, and the first
// `take` events of each subscription, from Hive Gateway and from the merged graph.
import { text } from 'node:stream/consumers';
import { createGatewayRuntime } from '@graphql-hive/gateway-runtime';
import { composeServices } from '@theguild/federation-composition';
import { parse } from 'graphql';

const { gateway, subgraphs, headers, queries, subscriptions } = JSON.parse(await text(process.stdin));

const post = (send, url, accept, body) =>
  send(url, {
    method: 'POST',
    headers: { ...headers, accept, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });

async function execute(send, url, body) {
  return (await post(send, url, 'application/json', body)).json();
}

async function firstEvents(send, url, { take, ...body }) {
  const response = await post(send, url, 'text/event-stream', body);
  const events = [];
  let buffer = '';
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    buffer += chunk;
    const blocks = buffer.split('\n\n');
    buffer = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').find((line) => line.startsWith('data: {'));
      if (data) events.push(JSON.parse(data.slice('data: '.length)));
    }
    if (events.length >= take) break;
  }
  return events.slice(0, take);
}

const services = await Promise.all(
  Object.entries(subgraphs).map(async ([name, url]) => {
    const { data } = await execute(fetch, url, { query: '{ _service { sdl } }' });
    return { name, url, typeDefs: parse(data._service.sdl) };
  }),
);
const hive = createGatewayRuntime({
  supergraph: composeServices(services).supergraphSdl,
  propagateHeaders: { fromClientToSubgraphs: ({ request }) => ({ authorization: request.headers.get('authorization') }) },
  maskedErrors: false,
  logging: false,
});
const url = 'http://127.0.0.1/graphql';

const responses = [];
for (const query of queries) responses.push(await execute(hive.fetch, url, query));
const events = { hive: [], gateway: [] };
for (const subscription of subscriptions) {
  events.hive.push(await firstEvents(hive.fetch, url, subscription));
  events.gateway.push(await firstEvents(fetch, gateway, subscription));
}
process.stdout.write(JSON.stringify({ responses, events }), () => process.exit(0)); // ends the open subscriptions
