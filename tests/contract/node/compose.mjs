// node compose.mjs NAME=FILE …: compose the subgraphs with Apollo; print errors, hints and the supergraph as JSON.
import { readFileSync } from 'node:fs';
import { composeServices } from '@apollo/composition';
import { parse } from 'graphql';

const services = process.argv.slice(2).map((argument) => {
  const [name, file] = argument.split('=');
  return { name, typeDefs: parse(readFileSync(file, 'utf8')) };
});
const { errors = [], hints = [], supergraphSdl } = composeServices(services);

console.log(
  JSON.stringify({
    errors: errors.map(({ message, extensions }) => ({ message, code: extensions.code })),
    hints: hints.map(({ message, definition }) => ({ message, code: definition.code })),
    supergraph: supergraphSdl,
  }),
);
