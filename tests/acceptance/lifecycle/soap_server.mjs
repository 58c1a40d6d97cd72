// A SOAP service by the package soap, from npm. Prints its port.
// It books order `good`; `refused` and `refused-500` are Faults of the client, in a 200 and in a 500; of
// `busy` the first answer is a Fault of the server.

import http from 'node:http';
import { createRequire } from 'node:module';

const soap = createRequire(import.meta.url)('soap');

const booking = (name, fields) => `
  <message name="${name}">${fields.map((field) => `<part name="${field}" type="xsd:string"/>`).join('')}</message>`;
const wsdl = `<?xml version="1.0"?>
<definitions name="Orders" targetNamespace="urn:orders" xmlns="http://schemas.xmlsoap.org/wsdl/"
    xmlns:tns="urn:orders" xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
  ${booking('BookRequest', ['order'])}${booking('BookResponse', ['number', 'heard'])}
  <portType name="OrdersPort"><operation name="Book">
    <input message="tns:BookRequest"/><output message="tns:BookResponse"/>
  </operation></portType>
  <binding name="OrdersBinding" type="tns:OrdersPort">
    <soap:binding style="rpc" transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="Book">
      <soap:operation soapAction="urn:orders#Book"/>
      <input><soap:body use="literal" namespace="urn:orders"/></input>
      <output><soap:body use="literal" namespace="urn:orders"/></output>
    </operation>
  </binding>
  <service name="Orders"><port name="OrdersPort" binding="tns:OrdersBinding">
    <soap:address location="http://127.0.0.1/orders"/>
  </port></service>
</definitions>`;

const fault = (faultcode, faultstring, statusCode) => ({ Fault: { faultcode, faultstring, statusCode } });
let asked = 0;

function Book({ order }) {
  if (order === 'refused') throw fault('soap:Client', 'No such customer', 200);
  if (order === 'refused-500') throw fault('soap:Client', 'No such customer', 500);
  asked += 1;
  if (order === 'busy' && asked === 1) throw fault('soap:Server', 'Try again later', 200);
  return { number: String(4711), heard: order };
}

const server = http.createServer((request, response) => response.writeHead(404).end());
soap.listen(server, '/orders', { Orders: { OrdersPort: { Book } } }, wsdl);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
