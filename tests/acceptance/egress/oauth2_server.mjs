// An authorization server (oidc-provider, from npm) and an API that takes its tokens, in one process.
// Prints its port, and what it has counted at /counts.

import crypto from 'node:crypto';
import http from 'node:http';
import { jwtVerify } from 'jose';
import Provider from 'oidc-provider';

const counts = { tokens: 0, asked: 0, calls: 0, refused: 0 };
const revoked = new Set();
const seen = new Set();

// Public keys in PEM: that of the client `signs`, and that of the account of /bearer.
const [clientKey, accountKey] = process.argv.slice(2).map((pem) => crypto.createPublicKey(pem));

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
  }, {
    client_id: 'signs',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope: 'orders',
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [{ ...clientKey.export({ format: 'jwk' }), kid: 'k1', use: 'sig' }] },
  }],
  scopes: ['orders'],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
  ttl: { ClientCredentials: 5 },
});
provider.on('grant.success', () => { counts.tokens += 1; });

// As Google has it (RFC 7523): an assertion for a token, each taken once.
const given = new Set();
const taken = new Set();
async function bearer(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const form = new URLSearchParams(Buffer.concat(chunks).toString());
  let answer;
  try {
    if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:jwt-bearer') throw new Error('grant');
    const { payload } = await jwtVerify(form.get('assertion'), accountKey, {
      algorithms: ['RS256'],
      audience: `http://${request.headers.host}/bearer`,
      issuer: 'reports@project.example',
      maxTokenAge: '1h',
      requiredClaims: ['exp', 'jti', 'scope'],
    });
    if (taken.has(payload.jti)) throw new Error('jti');
    taken.add(payload.jti);
    answer = { access_token: `google-${crypto.randomUUID()}`, token_type: 'Bearer', expires_in: 2 };
    given.add(answer.access_token);
  } catch (error) {
    answer = { error: 'invalid_grant', error_description: String(error.message) };
  }
  response.writeHead(answer.error ? 400 : 200, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(answer));
}

async function api(request, response) {
  counts.calls += 1;
  const value = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  const token = value && !revoked.has(value) ? await provider.ClientCredentials.find(value) : null;
  seen.add(value);
  const good = (token && !token.isExpired) || given.has(value);
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
  } else if (request.url === '/bearer') {
    counts.asked += 1;
    bearer(request, response);
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
