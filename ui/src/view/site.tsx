/** One site: what is on it, who has it, and what happened to it. Changes by hand are asked about first. */
import { useState } from "preact/hooks";
import { api, explain } from "../api";
import { shortId } from "../format";
import { confirm, notify, type Question } from "../notice";
import { Empty, Facts, Trouble } from "../part/panel";
import { Moment } from "../part/time";
import { useResource } from "../resource";
import { toRun } from "../route";
import { describeChange, wordOf } from "../site";
import type { Site, SiteChange, SitePatch } from "../type";

const CHANGES = 30;

export function SitePanel({ site, onChange }: { site: Site; onChange: () => void }) {
  const changes = useResource((abort) => api.siteChanges(site.id, CHANGES, abort), [site.id, site.updated_at]);
  const [busy, setBusy] = useState(false);
  const change = async (body: SitePatch, asked: Question) => {
    if (!(await confirm(asked))) return;
    setBusy(true);
    try {
      await api.changeSite(site.id, body);
      onChange();
    } catch (error) {
      notify("error", `${site.id} could not be changed: ${explain(error)}`);
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="side-body site-panel">
      <h2>{site.id}</h2>
      <Owner site={site} />
      <Switches site={site} busy={busy} onChange={change} />
      <Facts
        items={[
          ["Group", site.group ?? "none"],
          ["Content", site.content ?? "–"],
          ...(site.lane === null ? [] : ([["Lane", `${site.lane}, depth ${site.depth}`]] as const)),
          ...(site.x === null ? [] : ([["Place", `${site.x}, ${site.y}`]] as const)),
          ["Changed", <Moment at={site.updated_at} />],
        ]}
      />
      {site.tags.length > 0 && (
        <p class="tags" aria-label="Tags">
          {site.tags.map((tag) => (
            <span key={tag} class="tag">
              {tag}
            </span>
          ))}
        </p>
      )}
      {Object.keys(site.attrs).length > 0 && <Facts items={Object.entries(site.attrs).map(([name, value]) => [name, wordOf(value)])} />}
      <h3>Changes</h3>
      {changes.error.value && <Trouble error={changes.error.value} />}
      {changes.data.value?.items.length === 0 && <Empty icon="file">Nothing has changed here yet.</Empty>}
      <ol class="log">
        {changes.data.value?.items.map((item) => (
          <Change key={item.id} item={item} />
        ))}
      </ol>
    </div>
  );
}

function Owner({ site }: { site: Site }) {
  if (site.locked_by) {
    return (
      <p class="sentence">
        Locked by run{" "}
        <a class="mono" href={toRun(site.locked_by.run, site.locked_by.path ?? undefined)}>
          {shortId(site.locked_by.run)}
        </a>
        {site.locked_by.path && <span class="quiet"> (block {site.locked_by.path})</span>}
      </p>
    );
  }
  return <p class="sentence">{site.locked_text ? `Locked: ${site.locked_text}` : "Not locked: any run may take it."}</p>;
}

interface SwitchesProps {
  site: Site;
  busy: boolean;
  onChange: (body: SitePatch, asked: Question) => Promise<void>;
}

function Switches({ site, busy, onChange }: SwitchesProps) {
  const { id } = site;
  const locked = site.locked_by !== null || site.locked_text !== null;
  return (
    <div class="switches">
      <Switch
        text="Enabled"
        on={site.enabled}
        busy={busy}
        onToggle={() =>
          onChange(
            { enabled: !site.enabled },
            site.enabled
              ? { title: `Disable ${id}?`, text: "No run will be given this site until it is enabled again. A run that has it keeps it.", action: "Disable" }
              : { title: `Enable ${id}?`, text: "Runs that wait for such a site may be given it at once.", action: "Enable" },
          )
        }
      />
      <Switch
        text="Filled"
        on={site.filled}
        busy={busy}
        onToggle={() =>
          onChange(
            site.filled ? { filled: false, content: null } : { filled: true },
            site.filled
              ? { title: `Mark ${id} as empty?`, text: "Only if nothing stands there: a robot may bring a load to it at once.", action: "Mark as empty", danger: true }
              : { title: `Mark ${id} as filled?`, text: "Only if a load stands there: a robot may be sent to take it.", action: "Mark as filled", danger: true },
          )
        }
      />
      <button
        type="button"
        class="danger-line"
        disabled={!locked || busy}
        onClick={() =>
          void onChange(
            { locked: false },
            { title: `Take the lock off ${id}?`, text: "The run that has it will go on as if it still had it. Do this only when that run is known to be gone.", action: "Unlock", danger: true },
          )
        }
      >
        Unlock
      </button>
    </div>
  );
}

function Switch({ text, on, busy, onToggle }: { text: string; on: boolean; busy: boolean; onToggle: () => Promise<void> }) {
  return (
    <button type="button" class="switch" role="switch" aria-checked={on} disabled={busy} onClick={() => void onToggle()}>
      <span class="switch-track" aria-hidden="true" />
      {text}
    </button>
  );
}

function Change({ item }: { item: SiteChange }) {
  return (
    <li>
      <span class="log-head quiet">
        <Moment at={item.at} />
        {item.run_id ? (
          <a class="mono" href={toRun(item.run_id, item.path ?? undefined)}>
            {shortId(item.run_id)}
          </a>
        ) : (
          <span>by hand</span>
        )}
      </span>
      <span class="log-text">{describeChange(item.change)}</span>
    </li>
  );
}
