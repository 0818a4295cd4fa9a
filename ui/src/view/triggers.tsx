/** What starts runs by itself: intervals, calendars, events; and the events that came in. */
import { useEffect, useState } from "preact/hooks";
import { api, explain } from "../api";
import { now } from "../clock";
import { age, plural, shortId } from "../format";
import { confirm, notify } from "../notice";
import { Icon } from "../part/icon";
import { Card, Empty, PageHead, Trouble } from "../part/panel";
import { Moment } from "../part/time";
import { useResource } from "../resource";
import { toDefinition, toRun } from "../route";
import { parseJson } from "../schema";
import { stream } from "../stream";
import type { Json, Trigger } from "../type";

const EVERY_MS = 5000;
const EVENTS = 50;

export function TriggersView() {
  useEffect(() => stream.watch([]), []);
  const triggers = useResource((abort) => api.triggers(abort), [], { everyMs: EVERY_MS });
  const items = triggers.data.value?.items;
  return (
    <div class="view">
      <PageHead title="Triggers" note={items && `${plural(items.filter((trigger) => trigger.enabled).length, "trigger")} of ${items.length} enabled.`} />
      {triggers.error.value && <Trouble error={triggers.error.value} onRetry={() => void triggers.reload()} />}
      <Card title="What starts runs by itself" class="flush">
        {items?.length === 0 && <Empty icon="triggers">There are none. POST /api/triggers makes one.</Empty>}
        {items && items.length > 0 && <TriggerTable items={items} onChange={() => void triggers.reload()} />}
      </Card>
      <Events />
    </div>
  );
}

function TriggerTable({ items, onChange }: { items: readonly Trigger[]; onChange: () => void }) {
  return (
    <div class="scroll">
      <table class="table">
        <thead>
          <tr>
            <th>Trigger</th>
            <th>When</th>
            <th>Starts</th>
            <th>Next</th>
            <th>Last run</th>
            <th class="number">At most pending</th>
            <th>Enabled</th>
          </tr>
        </thead>
        <tbody>
          {items.map((trigger) => (
            <TriggerRow key={trigger.id} trigger={trigger} onChange={onChange} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function TriggerRow({ trigger, onChange }: { trigger: Trigger; onChange: () => void }) {
  return (
    <tr>
      <th scope="row">{trigger.id}</th>
      <td>{whenOf(trigger)}</td>
      <td>
        <a href={toDefinition(trigger.definition_id)}>{trigger.definition_id}</a>
      </td>
      <td>{trigger.enabled && trigger.next_at !== null ? `in ${age(trigger.next_at - now.value)}` : <span class="quiet">–</span>}</td>
      <td>
        {trigger.last_run_id === null ? (
          <span class="quiet">never</span>
        ) : (
          <a class="mono" href={toRun(trigger.last_run_id)}>
            {shortId(trigger.last_run_id)}
          </a>
        )}
      </td>
      <td class="number">{trigger.max_pending}</td>
      <td>
        <button type="button" class="switch" role="switch" aria-checked={trigger.enabled} aria-label={`${trigger.id} enabled`} onClick={() => void toggle(trigger, onChange)}>
          <span class="switch-track" aria-hidden="true" />
        </button>
      </td>
    </tr>
  );
}

function whenOf({ kind, spec }: Trigger): string {
  if (kind === "interval") return `every ${Number.isFinite(Number(spec)) ? age(Number(spec)) : spec}`;
  return kind === "event" ? `at event ${spec}` : `by calendar ${spec}`;
}

async function toggle(trigger: Trigger, onChange: () => void): Promise<void> {
  const enabled = !trigger.enabled;
  const text = enabled ? `It will start runs of ${trigger.definition_id} ${whenOf(trigger)}.` : "It starts no more runs. Runs that are under way go on.";
  if (!(await confirm({ title: `${enabled ? "Enable" : "Disable"} ${trigger.id}?`, text, action: enabled ? "Enable" : "Disable" }))) return;
  const { id, definition_id, kind, spec, priority, max_pending } = trigger;
  try {
    await api.saveTrigger({ id, definition_id, kind, spec, inputs: trigger.inputs as { [key: string]: Json }, priority, enabled, max_pending });
  } catch (error) {
    notify("error", `${id} could not be changed: ${explain(error)}`);
  }
  onChange();
}

function Events() {
  const events = useResource((abort) => api.events(EVENTS, abort), [], { everyMs: EVERY_MS });
  const items = events.data.value?.items;
  return (
    <Card title="Events from outside" note="the latest, newest first">
      <EventForm onSent={() => void events.reload()} />
      {events.error.value && <Trouble error={events.error.value} />}
      {items?.length === 0 && <Empty icon="triggers">None has come in.</Empty>}
      <ol class="log">
        {items?.map((event) => (
          <li key={event.id}>
            <span class="log-head quiet">
              <Moment at={event.at} />
            </span>
            <span class="log-text">
              <strong>{event.name}</strong> <code>{event.data === null ? "" : JSON.stringify(event.data).slice(0, 300)}</code>
            </span>
          </li>
        ))}
      </ol>
    </Card>
  );
}

function EventForm({ onSent }: { onSent: () => void }) {
  const [name, setName] = useState("");
  const [data, setData] = useState("");
  const send = async (event: Event) => {
    event.preventDefault();
    try {
      const sent = await api.publish(name.trim(), data.trim() ? parseJson(data) : null);
      notify("ok", `${plural(sent.delivered, "waiting block")} got it; ${plural(sent.started.length, "run")} started.`);
      onSent();
    } catch (error) {
      notify("error", `The event was not sent: ${explain(error)}`);
    }
  };
  return (
    <form class="inline-form" onSubmit={(event) => void send(event)}>
      <input aria-label="Name of the event" placeholder="Name of an event" value={name} onInput={(event) => setName(event.currentTarget.value)} />
      <input class="grow mono" aria-label="Data as JSON" placeholder="Data as JSON, or nothing" value={data} onInput={(event) => setData(event.currentTarget.value)} />
      <button type="submit" disabled={name.trim() === ""}>
        <Icon name="triggers" />
        Send
      </button>
    </form>
  );
}
