/** Everything that may hold things for long, how full it is, and what it has let go. */
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { pageLedger } from "../bounded";
import { bytes, count } from "../format";
import { byFullness, describeLedger } from "../ledger";
import { Meter } from "../part/meter";
import { Card, Empty, PageHead, Trouble } from "../part/panel";
import { useResource } from "../resource";
import { stream } from "../stream";
import type { LedgerItem } from "../type";

const EVERY_MS = 2000;

export function LedgerView() {
  useEffect(() => stream.watch([]), []);
  const ledger = useResource((abort) => api.ledger(abort), [], { everyMs: EVERY_MS });
  const items = ledger.data.value?.items;
  return (
    <div class="view">
      <PageHead title="Ledger" note={items ? describeLedger(items) : ""} />
      {ledger.error.value && <Trouble error={ledger.error.value} onRetry={() => void ledger.reload()} />}
      <Card title="In the server">{items && <LedgerTable items={items} />}</Card>
      <Card title="In this page" note="kept to these bounds however long the page stays open">
        <LedgerTable items={pageLedger()} />
      </Card>
    </div>
  );
}

function LedgerTable({ items }: { items: readonly LedgerItem[] }) {
  if (items.length === 0) return <Empty>There are none.</Empty>;
  return (
    <div class="scroll">
      <table class="table">
        <thead>
          <tr>
            <th>Collection</th>
            <th>Kind</th>
            <th>Entries</th>
            <th>Bytes</th>
            <th class="number">Let go</th>
          </tr>
        </thead>
        <tbody>
          {byFullness(items).map((item, at) => (
            <tr key={`${item.name} ${at}`}>
              <th scope="row">{item.name}</th>
              <td>{item.kind}</td>
              <td>
                <Meter value={item.size} bound={item.bound} label={`${item.name} entries`} text={of(count(item.size), item.bound, count)} />
              </td>
              <td>
                {item.bytes === null ? (
                  <span class="quiet">not counted</span>
                ) : (
                  <Meter value={item.bytes} bound={item.max_bytes} label={`${item.name} bytes`} text={of(bytes(item.bytes), item.max_bytes, bytes)} />
                )}
              </td>
              <td class="number">{count(item.evictions)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function of(size: string, bound: number | null, format: (value: number) => string): string {
  return bound === null ? size : `${size} of ${format(bound)}`;
}
