// node compose.mjs < GRAPHS: compose each graph with Apollo, Hive and Cosmo. GRAPHS is a JSON array; each graph is an
// object with the SDL of each subgraph by name. Prints a JSON array with one object for each graph: by composer, the
// codes or messages of the errors, the hints, and the composed schema.
import { text } from 'node:stream/consumers';
import { composeServices as composeWithApollo } from '@apollo/composition';
import { composeServices as composeWithHive } from '@theguild/federation-composition';
import { ROUTER_COMPATIBILITY_VERSION_ONE, federateSubgraphs } from '@wundergraph/composition';
import { parse, printSchema } from 'graphql';

const url = 'http://127.0.0.1/'; // each composer wants one

const apollo = (subgraphs) => {
  const { errors = [], hints = [], supergraphSdl } = composeWithApollo(subgraphs);
  return { errors: errors.map(({ extensions }) => extensions.code), hints: hints.map(String), schema: supergraphSdl };
};

const hive = (subgraphs) => {
  const { errors = [], supergraphSdl } = composeWithHive(subgraphs);
  return { errors: errors.map(({ extensions }) => extensions.code), hints: [], schema: supergraphSdl };
};

const cosmo = (subgraphs) => {
  const { success, errors, warnings, federatedGraphClientSchema } = federateSubgraphs({
    subgraphs: subgraphs.map(({ name, typeDefs }) => ({ name, url, definitions: typeDefs })),
    version: ROUTER_COMPATIBILITY_VERSION_ONE,
  });
  return {
    errors: success ? [] : errors.map(({ message }) => message),
    hints: warnings.map(({ message }) => message),
    schema: success ? printSchema(federatedGraphClientSchema) : undefined,
  };
};

const graphs = JSON.parse(await text(process.stdin)).map((graph) =>
  Object.entries(graph).map(([name, sdl]) => ({ name, url, typeDefs: parse(sdl) })),
);
console.log(
  JSON.stringify(graphs.map((graph) => ({ apollo: apollo(graph), hive: hive(graph), cosmo: cosmo(graph) }))),
);
