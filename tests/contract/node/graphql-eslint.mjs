// Checks a schema with graphql-eslint's Relay rules. Standard input: the schema. Output: the findings.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import plugin from "@graphql-eslint/eslint-plugin";
import { ESLint } from "eslint";

const rules = {
  ...plugin.configs["flat/schema-relay"].rules,
  // Account.transfers pages forward only.
  "@graphql-eslint/relay-arguments": ["error", { includeBoth: false }],
  // An operation has the id of its transfer, so it is no node; and the graph has lists of other types than edges.
  "@graphql-eslint/relay-edge-types": [
    "error",
    { withEdgeSuffix: true, shouldImplementNode: false, listTypeCanWrapOnlyEdgeType: false },
  ],
};

const folder = mkdtempSync(join(tmpdir(), "graphql-eslint-"));
try {
  const schema = join(folder, "schema.graphql");
  writeFileSync(schema, readFileSync(0));
  const parserOptions = { graphQLConfig: { schema } };
  const eslint = new ESLint({
    cwd: folder,
    overrideConfigFile: true,
    overrideConfig: [
      {
        files: ["**/*.graphql"],
        languageOptions: { parser: plugin.parser, parserOptions },
        plugins: { "@graphql-eslint": plugin },
        rules,
      },
    ],
  });
  const results = await eslint.lintFiles([schema]);
  const findings = results.flatMap((each) => each.messages).map((each) => `${each.ruleId}: ${each.message}`);
  console.log(JSON.stringify(findings));
} finally {
  rmSync(folder, { recursive: true });
}
