// An authorization server (oidc-provider, from npm) and an API that takes its tokens, in one process.
// Prints its port, and what it has counted at /counts.

import http from 'node:http';
import Provider from 'oidc-provider';

const counts = { tokens: 0, asked: 0, calls: 0, refused: 0 };
const revoked = new Set();
const seen = new Set();

const provider = new Provider('http://127.0.0.1', {
  clients: [{
    client_id: 'shop:daemon/1',
    client_secret: 'a secret+with %41 signs: ?&=/@',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope: 'orders',
  }, {
    client_id: 'posts',
    client_secret: 'in-the-body-alone',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: 'client_secret_post',
  }],
  scopes: ['orders'],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
  ttl: { ClientCredentials: 5 },
});
provider.on('grant.success', () => { counts.tokens += 1; });

async function api(request, response) {
  counts.calls += 1;
  const value = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  const token = value && !revoked.has(value) ? await provider.ClientCredentials.find(value) : null;
  seen.add(value);
  const good = token && !token.isExpired;
  if (!good) counts.refused += 1;
  response.writeHead(good ? 200 : 401, { 'Content-Type': 'application/json' });
  // It tells everybody what it was told.
  response.end(JSON.stringify({ good: Boolean(good), scope: token?.scope, heard: value }));
}

const oauth2 = provider.callback();
const server = http.createServer((request, response) => {
  if (request.url === '/token') {
    counts.asked += 1;
    oauth2(request, response);
  } else if (request.url === '/counts') {
    response.end(JSON.stringify(counts));
  } else if (request.url === '/revoke') {
    seen.forEach((value) => revoked.add(value));
    response.end('{}');
  } else {
    api(request, response);
  }
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
