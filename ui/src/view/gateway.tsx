/** The gateway: its services and their endpoints, the cache, the pressure it is under, and the newest requests. */
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { bytes, count, duration, percent, time } from "../format";
import { Meter } from "../part/meter";
import { Card, Empty, Facts, PageHead, Trouble } from "../part/panel";
import { useResource } from "../resource";
import { stream } from "../stream";
import type { GatewayView as View, GatewayEndpoint, GatewayRecord, GatewayService } from "../type";

const EVERY_MS = 2000;
const LEVELS = ["none", "the cache shrinks", "connections are drained", "requests are refused"];

export function GatewayView() {
  useEffect(() => stream.watch([]), []);
  const gateway = useResource((abort) => api.gateway(abort), [], { everyMs: EVERY_MS });
  const found = gateway.data.value;
  return (
    <div class="view">
      <PageHead title="Gateway" note={found ? describe(found) : ""} />
      {gateway.error.value && <Trouble error={gateway.error.value} onRetry={() => void gateway.reload()} />}
      {found && (
        <>
          <Card title="Services" class="flush">
            <Services services={found.statistics.services} />
          </Card>
          <div class="columns">
            <Card title="Endpoints">
              <Endpoints services={found.statistics.services} />
            </Card>
            <Card title="State">
              <State view={found} />
            </Card>
          </div>
          <Card title="Newest requests" note={`of the last ${count(found.statistics.history)} that are kept`}>
            <History records={found.history} />
          </Card>
        </>
      )}
    </div>
  );
}

function describe({ statistics }: View): string {
  const down = statistics.services.flatMap((service) => service.endpoints).filter((endpoint) => endpoint.state !== "up");
  const active = `${count(statistics.active)} of at most ${count(statistics.max_requests)} requests are under way, ${count(statistics.requests)} came since the start`;
  return down.length === 0 ? `${active}; every endpoint is up.` : `${active}; not up: ${down.map((endpoint) => endpoint.url).join(", ")}.`;
}

function Services({ services }: { services: readonly GatewayService[] }) {
  return (
    <div class="scroll">
      <table class="table">
        <thead>
          <tr>
            <th>Service</th>
            <th class="number">Requests</th>
            <th>Answers</th>
            <th class="number">Median</th>
            <th class="number">99 %</th>
            <th class="number">Slowest</th>
            <th>Answered here</th>
            <th>Under way</th>
          </tr>
        </thead>
        <tbody>
          {services.map((service) => (
            <tr key={service.name}>
              <th scope="row">{service.name}</th>
              <td class="number">{count(service.requests)}</td>
              <td>{counts(service.statuses)}</td>
              <td class="number">{duration(service.latency.p50)}</td>
              <td class="number">{duration(service.latency.p99)}</td>
              <td class="number">{duration(service.latency.maximum)}</td>
              <td>{counts(service.refused) || <span class="quiet">none</span>}</td>
              <td>
                <Meter
                  value={service.breaker.requests}
                  bound={service.breaker.max_requests}
                  label={`${service.name} requests under way`}
                  text={`${count(service.breaker.requests)} of ${count(service.breaker.max_requests)}`}
                />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function counts(by: Readonly<Record<string, number>>): string {
  return Object.entries(by)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${name} ${count(number)}`)
    .join(", ");
}

function Endpoints({ services }: { services: readonly GatewayService[] }) {
  const rows = services.flatMap((service) => service.endpoints.map((endpoint): [string, GatewayEndpoint] => [service.name, endpoint]));
  return (
    <div class="scroll">
      <table class="table small">
        <thead>
          <tr>
            <th>Endpoint</th>
            <th>State</th>
            <th class="number">Failures</th>
            <th>Connections</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([service, endpoint]) => (
            <tr key={`${service} ${endpoint.url}`}>
              <th scope="row" class="mono">
                {endpoint.url}
              </th>
              <td class={endpoint.state === "up" ? "" : "bad"} title={endpoint.last_error}>
                {endpoint.state}
              </td>
              <td class="number">{count(endpoint.failures)}</td>
              <td>
                <Meter
                  value={endpoint.pool.size}
                  bound={endpoint.pool.bound}
                  label={`${endpoint.url} connections`}
                  text={`${count(endpoint.pool.size)} of ${count(endpoint.pool.bound)}, ${count(endpoint.pool.idle)} idle`}
                />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function State({ view: { statistics, background } }: { view: View }) {
  const { cache, overload, tasks } = statistics;
  const looked = cache ? cache.hits + cache.stale_hits + cache.misses + cache.validations : 0;
  const facts: [string, string][] = [
    ["Pressure", overload ? `${Math.round(100 * overload.pressure)} % of the memory limit` : "not watched"],
    ["Overload", overload ? (LEVELS[overload.size] ?? "") : "not watched"],
    ["Managed tasks", `${count(tasks.size)}, and ${count(background.length)} after requests`],
    ["Reloads", count(statistics.reloads)],
  ];
  if (cache) {
    facts.push(
      ["Cached", `${count(cache.size)} responses, ${bytes(cache.bytes)} of ${bytes(cache.max_bytes)}`],
      ["From the cache", looked > 0 ? percent(cache.hits + cache.stale_hits, looked) : "nothing asked"],
      ["Evicted", count(cache.evictions)],
    );
  }
  return <Facts items={facts} />;
}

function History({ records }: { records: readonly GatewayRecord[] }) {
  if (records.length === 0) return <Empty>There were none.</Empty>;
  return (
    <div class="scroll">
      <table class="table small">
        <thead>
          <tr>
            <th>At</th>
            <th>Service</th>
            <th>Request</th>
            <th class="number">Status</th>
            <th class="number">Took</th>
            <th>Cache</th>
            <th>Why</th>
          </tr>
        </thead>
        <tbody>
          {records.map((record) => (
            <tr key={record.id}>
              <td>{time(record.at)}</td>
              <td>{record.service || <span class="quiet">none</span>}</td>
              <td class="mono">
                {record.method} {record.target}
              </td>
              <td class={record.status >= 500 ? "number bad" : "number"}>{record.status}</td>
              <td class="number">{duration(record.duration_s)}</td>
              <td>{record.cache}</td>
              <td>{record.reason}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
