// node follow.mjs < REQUEST: subscribe to an account's operations with the client of graphql-ws, graphql-ws 5 or
// graphql-sse. Each client reconnects automatically. REQUEST is JSON with `client`, `url`, `token` and `payload`;
// `payload` is the subscription. Each event is printed at once, as one line of JSON.
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import WebSocket from 'ws';

const { client, url, token, payload } = JSON.parse(await text(process.stdin));
const authorization = `Bearer ${token}`;
const pause = () => setTimeout(100);
const print = (event) => console.log(JSON.stringify(event));
let connections = 0;
const connected = () => print({ connected: connections++ ? 'again' : 'first' });

const { createClient } = await import(client);

const webSocket = (connectionParams) =>
  createClient({
    url: url.replace('http', 'ws'),
    connectionParams,
    webSocketImpl: WebSocket,
    retryAttempts: 100,
    retryWait: pause,
    // Without this, the client gives up while the server is down. It gives up after a fatal close code in any case.
    shouldRetry: () => true,
    isFatalConnectionProblem: () => false, // has the same effect in graphql-ws 5
    on: { connected, closed: ({ code }) => print({ closed: code }) },
  });

const subscriber = {
  'graphql-ws': () => webSocket({ authorization }),
  'graphql-ws-5': () => webSocket({ headers: { Authorization: authorization } }),
  'graphql-sse': () =>
    createClient({
      url,
      headers: { authorization },
      retryAttempts: 100,
      retry: pause,
      on: { connected },
    }),
}[client]();

subscriber.subscribe(payload, {
  next({ data, errors }) {
    if (errors) return print({ errors });
    payload.variables.after = data.operationAdded.cursor; // a reconnecting client sends the current payload
    print({ operation: data.operationAdded });
  },
  error: (error) => print({ error: String(error.reason ?? error.message ?? JSON.stringify(error)), code: error.code }),
  complete: () => print({ complete: true }),
});
