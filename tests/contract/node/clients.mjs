// node clients.mjs < REQUEST: use the HTTP clients of Apollo and urql. REQUEST is JSON: `url`, `token` and `account`.
// Prints JSON: the balances that both clients read although the gateway has no persisted queries, and the account's
// first two operations, which Apollo's client receives as the parts of a multipart response.
import { createHash } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { createClient, fetchExchange } from '@urql/core';
import { persistedExchange } from '@urql/exchange-persisted';

// urql aborts a request whose response it has read, and does not handle the rejection of its own abort.
process.on('unhandledRejection', (error) => {
  if (error.name !== 'AbortError') throw error;
});

const { url, token, account } = JSON.parse(await text(process.stdin));
const headers = { authorization: `Bearer ${token}` };
const sha256 = async (document) => createHash('sha256').update(document).digest('hex');
const balance = gql`query Balance($id: ID!) { account(id: $id) { balance { amount } } }`;
const operations = gql`
  subscription Operations($id: ID!) { operationAdded(accountId: $id, after: "djA") { amount { amount } cursor } }
`;

const apollo = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.from([new PersistedQueryLink({ sha256 }), new HttpLink({ uri: url, headers })]),
});
const { data } = await apollo.query({ query: balance, variables: { id: account } });

const urql = createClient({
  url,
  exchanges: [persistedExchange({ generateHash: sha256, preferGetForPersistedQueries: true }), fetchExchange],
  fetchOptions: { headers },
  preferGetMethod: false,
});
const answer = await urql.query(balance, { id: account }).toPromise();

const received = [];
await new Promise((resolve, reject) => {
  const subscriber = new ApolloClient({ cache: new InMemoryCache(), link: new HttpLink({ uri: url, headers }) });
  const subscription = subscriber.subscribe({ query: operations, variables: { id: account } }).subscribe({
    next(result) {
      received.push(result.data.operationAdded.amount.amount);
      if (received.length === 2) resolve(subscription.unsubscribe());
    },
    error: reject,
    complete: () => reject(new Error('the subscription has ended')),
  });
});

console.log(
  JSON.stringify({
    apollo: data.account.balance.amount,
    urql: answer.data?.account.balance.amount ?? String(answer.error),
    multipart: received,
  }),
);
