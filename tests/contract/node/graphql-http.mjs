// node graphql-http.mjs URL: audit a GraphQL server with graphql-http; print the results as JSON.
import { auditServer } from 'graphql-http';

const results = await auditServer({ url: process.argv[2] });

console.log(
  JSON.stringify(
    await Promise.all(
      results.map(async ({ id, name, status, reason, response }) => ({
        id,
        name,
        status,
        reason,
        answer: response && `${response.status} ${response.bodyUsed ? '' : await response.text()}`,
      })),
    ),
  ),
);
