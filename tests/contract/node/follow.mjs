// node follow.mjs < ORDER: an account's operations as the client of graphql-ws or of graphql-sse sees them, which connects
// again by itself. ORDER is JSON: `client`, `url`, `token`, and `payload`, the subscription. What happens is told as it
// happens, one JSON object a line.
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import * as sse from 'graphql-sse';
import * as ws from 'graphql-ws';
import WebSocket from 'ws';

const { client, url, token, payload } = JSON.parse(await text(process.stdin));
const authorization = `Bearer ${token}`;
const pause = () => setTimeout(100);
const say = (what) => console.log(JSON.stringify(what));
const connected = (_, __, isRetry) => say({ connected: isRetry ? 'again' : 'first' });

const subscriber = {
  'graphql-ws': () =>
    ws.createClient({
      url: url.replace('http', 'ws'),
      connectionParams: { authorization },
      webSocketImpl: WebSocket,
      retryAttempts: 100,
      retryWait: pause,
      shouldRetry: () => true, // by itself it gives up where nobody answers yet; codes that are fatal stay so
      on: { connected, closed: ({ code }) => say({ closed: code }) },
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
    if (errors) return say({ errors });
    payload.variables.after = data.operationAdded.cursor; // the client sends the payload as it is when it connects again
    say({ operation: data.operationAdded });
  },
  error: (error) => say({ error: String(error.reason ?? error.message ?? JSON.stringify(error)), code: error.code }),
  complete: () => say({ complete: true }),
});
