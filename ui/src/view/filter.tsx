/** The filter of the list of runs. It lives in the address, so a filtered list can be sent to a colleague. */
import { useEffect, useState } from "preact/hooks";
import { api } from "../api";
import { count } from "../format";
import { Icon } from "../part/icon";
import { useResource } from "../resource";
import { go } from "../route";
import { type ListFilter, STATE_TEXT, STATES } from "../run";
import { status } from "../status";
import type { State } from "../type";

const MAX_DEFINITIONS = 200;

function change(filter: ListFilter, part: Partial<ListFilter>): void {
  const next = { ...filter, ...part };
  go(["runs"], { state: next.states.join(","), definition: next.definition, order: next.order });
}

export function FilterFields({ filter }: { filter: ListFilter }) {
  const definitions = useResource((abort) => api.definitions(null, MAX_DEFINITIONS, abort), []);
  const names = definitions.data.value?.items ?? [];
  return (
    <>
      <select aria-label="Definition" value={filter.definition} onChange={(event) => change(filter, { definition: event.currentTarget.value })}>
        <option value="">All definitions</option>
        {filter.definition && !names.some((info) => info.id === filter.definition) && <option value={filter.definition}>{filter.definition}</option>}
        {names.map((info) => (
          <option key={info.id} value={info.id}>
            {info.label || info.id}
          </option>
        ))}
      </select>
      <OrderField value={filter.order} onChange={(order) => change(filter, { order })} />
    </>
  );
}

export function StateChips({ filter }: { filter: ListFilter }) {
  const counts = status.data.value?.runs ?? {};
  return (
    <div class="chips" role="group" aria-label="States to show">
      {STATES.map((state) => (
        <StateChip
          key={state}
          state={state}
          on={filter.states.includes(state)}
          count={counts[state]}
          onToggle={() => change(filter, { states: toggled(filter.states, state) })}
        />
      ))}
      <button type="button" class="plain chip" disabled={filter.states.length === 0 && !filter.definition && !filter.order} onClick={() => go(["runs"])}>
        <Icon name="close" size={12} />
        Clear
      </button>
    </div>
  );
}

function toggled(states: readonly string[], state: State): string[] {
  return states.includes(state) ? states.filter((other) => other !== state) : [...states, state];
}

interface ChipProps {
  state: State;
  on: boolean;
  count: number | undefined;
  onToggle: () => void;
}

function StateChip({ state, on, count: runs, onToggle }: ChipProps) {
  return (
    <button type="button" class="chip" data-state={state} aria-pressed={on} onClick={onToggle}>
      {STATE_TEXT[state]}
      <small>{count(runs ?? 0)}</small>
    </button>
  );
}

function OrderField({ value, onChange }: { value: string; onChange: (order: string) => void }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const submit = (event: Event) => {
    event.preventDefault();
    onChange(text.trim());
  };
  return (
    <form onSubmit={submit} role="search">
      <input
        type="search"
        aria-label="Order number, Enter to search"
        placeholder="Order number"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onBlur={() => text.trim() !== value && onChange(text.trim())}
      />
    </form>
  );
}
