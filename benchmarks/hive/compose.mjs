// mesh-compose --config-path compose.mjs, in this folder: the bank's proto as a supergraph. BANK_GRPC_TARGET is where the bank
// is, GOOGLE_PROTOS the folder that google/type/money.proto is in.
import { defineConfig } from '@graphql-mesh/compose-cli';
import { loadGrpcSubgraph } from '@omnigraph/grpc';

const { BANK_GRPC_TARGET, GOOGLE_PROTOS } = process.env;
const root = '../../..';

export const composeConfig = defineConfig({
  subgraphs: [
    {
      sourceHandler: loadGrpcSubgraph('bank', {
        endpoint: BANK_GRPC_TARGET,
        source: { file: `${root}/protos/bank/v1/bank.proto`, load: { includeDirs: [root, GOOGLE_PROTOS] } },
        metaData: { authorization: '{context.headers.authorization}' },
      }),
    },
  ],
});
