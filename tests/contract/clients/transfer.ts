// Make a transfer with the generated TypeScript client, which is in the folder `client`. Standard input and output are
// those of transfer.py.
import { text } from 'node:stream/consumers';
import { AccountsApi, Configuration, OperationType, OperationsApi, ResponseError, TransfersApi } from './client/index.js';
import type { Problem } from './client/index.js';

const { url, token, sender, recipient, key } = JSON.parse(await text(process.stdin));
const configuration = new Configuration({ basePath: url, accessToken: token });
const transfers = new TransfersApi(configuration);

const transfer = (amount: string, idempotencyKey: string) =>
  transfers.createTransfer({ accountId: sender, idempotencyKey, transferRequest: { recipientId: recipient, amount } });

const made = await transfer('1.25', key);
const replayed = await transfer('1.25', key);
const page = await new OperationsApi(configuration).listOperations({
  accountId: sender,
  limit: 1,
  type: [OperationType.Transfer, OperationType.TopUp],
});
const account = await new AccountsApi(configuration).getAccount({ accountId: sender });
const refusal = await transfer('1000000.00', `${key}-2`).then(
  () => null,
  async (error: ResponseError) => ((await error.response.json()) as Problem).code,
);
console.log(
  JSON.stringify({
    transfer: made.id,
    replay: replayed.id,
    balance: account.balance,
    version: account.version,
    hasNewer: page.hasNewer,
    refusal,
  }),
);
