// node asyncapi.mjs FILE: parse a document with AsyncAPI's parser; print its diagnostics and its contents as JSON.
import { Parser, fromFile } from '@asyncapi/parser';

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();

const messages = (holder) =>
  holder.messages().all().map((message) => ({
    name: message.name(),
    contentType: message.contentType(),
    headers: message.headers()?.json(),
    payload: message.payload()?.json(),
    bindings: Object.fromEntries(message.bindings().all().map((each) => [each.protocol(), each.json()])),
  }));

console.log(
  JSON.stringify({
    diagnostics: diagnostics.map(({ code, severity, path, message }) => ({ code, severity, path, message })),
    channels: document?.channels().all().map((channel) => ({ address: channel.address(), messages: messages(channel) })),
    operations: document?.operations().all().map((operation) => ({
      id: operation.id(),
      action: operation.action(),
      channels: operation.channels().all().map((channel) => channel.address()),
      messages: messages(operation).map((message) => message.name),
      bindings: Object.fromEntries(operation.bindings().all().map((each) => [each.protocol(), each.json()])),
    })),
  }),
);
