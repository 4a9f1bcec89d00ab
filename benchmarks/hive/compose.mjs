// `mesh-compose --config-path compose.mjs`, run in this folder, writes a supergraph of the bank's proto.
// BANK_GRPC_TARGET: gRPC target of the bank. GOOGLE_PROTOS: folder that contains google/type/money.proto.
import { defineConfig } from '@graphql-mesh/compose-cli';
import { loadGrpcSubgraph } from '@omnigraph/grpc';

const { BANK_GRPC_TARGET, GOOGLE_PROTOS } = process.env;
const root = '../..';

export const composeConfig = defineConfig({
  subgraphs: [
    {
      sourceHandler: loadGrpcSubgraph('bank', {
        endpoint: BANK_GRPC_TARGET,
        source: { file: `${root}/protos/wallet/bank/v1/bank.proto`, load: { includeDirs: [root, GOOGLE_PROTOS] } },
        metaData: { authorization: '{context.headers.authorization}' },
      }),
    },
  ],
});
