// Fragments of a client with Relay: refetched objects, and pages of all connections that page in both directions.

graphql`
  query clientQuery($id: ID!, $ids: [ID!]!) {
    node(id: $id) { ...client_account @alias ...client_topUp @alias }
    nodes(ids: $ids) { __typename id }
  }
`;

graphql`
  fragment client_account on Account @refetchable(queryName: "clientAccountRefetch") {
    balance { amount }
    owner { username }
  }
`;

graphql`
  fragment client_topUp on TopUp @refetchable(queryName: "clientTopUpRefetch") {
    status
    transfer { amount { amount } }
  }
`;

graphql`
  fragment client_user on User @refetchable(queryName: "clientUserRefetch") {
    username
  }
`;

graphql`
  fragment client_operations on Account
  @argumentDefinitions(count: { type: "Int", defaultValue: 5 }, cursor: { type: "String" })
  @refetchable(queryName: "clientOperationsPage") {
    operations(first: $count, after: $cursor) @connection(key: "client_operations") {
      edges { node { id type amount { amount } } }
    }
  }
`;

graphql`
  fragment client_topUps on Account
  @argumentDefinitions(count: { type: "Int", defaultValue: 5 }, cursor: { type: "String" })
  @refetchable(queryName: "clientTopUpsPage") {
    topUps(last: $count, before: $cursor) @connection(key: "client_topUps") { edges { node { id status } } }
  }
`;

graphql`
  fragment client_accounts on Query
  @argumentDefinitions(
    first: { type: "Int" }
    after: { type: "String" }
    last: { type: "Int" }
    before: { type: "String" }
  )
  @refetchable(queryName: "clientAccountsPage") {
    accounts(first: $first, after: $after, last: $last, before: $before) @connection(key: "client_accounts") {
      edges { node { id balance { amount } } }
    }
  }
`;
