// node follow.mjs < REQUEST: subscribe to an account's operations with the client of graphql-ws or graphql-sse, which
// reconnects automatically. REQUEST is JSON: `client`, `url`, `token`, and `payload`, the subscription. Each event is
// printed at once, as one line of JSON.
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import * as sse from 'graphql-sse';
import * as ws from 'graphql-ws';
import WebSocket from 'ws';

const { client, url, token, payload } = JSON.parse(await text(process.stdin));
const authorization = `Bearer ${token}`;
const pause = () => setTimeout(100);
const print = (event) => console.log(JSON.stringify(event));
const connected = (_, __, isRetry) => print({ connected: isRetry ? 'again' : 'first' });

const subscriber = {
  'graphql-ws': () =>
    ws.createClient({
      url: url.replace('http', 'ws'),
      connectionParams: { authorization },
      webSocketImpl: WebSocket,
      retryAttempts: 100,
      retryWait: pause,
      shouldRetry: () => true, // the default gives up if the server is not up yet; fatal close codes stay fatal
      on: { connected, closed: ({ code }) => print({ closed: code }) },
    }),
  'graphql-sse': () =>
    sse.createClient({
      url,
      headers: { authorization },
      retryAttempts: 100,
      retry: pause,
      on: { connected: (isRetry) => connected(null, null, isRetry) },
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
