// Compiles relay/client.js with Relay's compiler. Standard input: the schema. Output: the compiler's exit status, its
// text, and the names of the generated files.
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = mkdtempSync(join(tmpdir(), "relay-"));
try {
  mkdirSync(join(folder, "source"));
  mkdirSync(join(folder, "generated"));
  copyFileSync(new URL("relay/client.js", import.meta.url), join(folder, "source", "client.js"));
  writeFileSync(join(folder, "schema.graphql"), readFileSync(0));
  const project = { schema: "schema.graphql", language: "javascript", output: "generated" };
  const config = { root: ".", sources: { source: "wallet" }, projects: { wallet: project } };
  writeFileSync(join(folder, "relay.config.json"), JSON.stringify(config));
  const compiler = createRequire(import.meta.url).resolve("relay-compiler/cli.js");
  const done = spawnSync(process.execPath, [compiler, "relay.config.json"], { cwd: folder, encoding: "utf8" });
  const generated = readdirSync(join(folder, "generated"));
  console.log(JSON.stringify({ status: done.status, text: done.stdout + done.stderr, generated }));
} finally {
  rmSync(folder, { recursive: true });
}
