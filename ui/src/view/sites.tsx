/** The map: sites by group or by their places on the plan, robots, and the chosen site beside it. */
import { useEffect, useMemo } from "preact/hooks";
import { api } from "../api";
import { Icon } from "../part/icon";
import { Card, Empty, PageHead, Tabs, Trouble } from "../part/panel";
import { useResource } from "../resource";
import { route, setQuery } from "../route";
import { describeSite, type Group, groupsOf, hasPlan, isLocked, type Lane, patched, summaryOf } from "../site";
import { stream } from "../stream";
import type { Robot, Site } from "../type";
import { Plan } from "./plan";
import { Robots } from "./robots";
import { SitePanel } from "./site";

const EVERY_MS = 15_000;
const ROBOTS_EVERY_MS = 2000;
const MAX_SITES = 5000;
const MAX_ROBOTS = 1000;
const TABS = [
  { id: "plan", text: "Plan" },
  { id: "groups", text: "Groups" },
];

async function loadSites(abort: AbortSignal): Promise<readonly Site[]> {
  const sites: Site[] = [];
  let cursor: string | null = null;
  do {
    const page = await api.sites(cursor, abort);
    sites.push(...page.items);
    cursor = page.next ?? null;
  } while (cursor !== null && sites.length < MAX_SITES);
  return sites;
}

export function SitesView() {
  const sites = useResource<readonly Site[]>(loadSites, [], { everyMs: EVERY_MS });
  const robots = useResource<readonly Robot[]>(async (abort) => (await api.robots(abort)).items, [], { everyMs: ROBOTS_EVERY_MS });
  useEffect(() => stream.watch(["site", "robot"]), []);
  useEffect(
    () =>
      stream.listen((batch) => {
        if (sites.data.value) sites.data.value = patched(sites.data.value, "site", batch, MAX_SITES);
        if (robots.data.value) robots.data.value = patched(robots.data.value, "robot", batch, MAX_ROBOTS);
      }),
    [sites, robots],
  );
  const all = sites.data.value;
  const shown = robots.data.value ?? [];
  return (
    <div class="view">
      <PageHead title="Sites" note={all ? `${summaryOf(all)}.` : "Loading…"} />
      {sites.error.value && <Trouble error={sites.error.value} onRetry={() => void sites.reload()} />}
      {all?.length === 0 && <Empty icon="sites">There are no sites yet. Import them with PUT /api/sites.</Empty>}
      {all && all.length > 0 && <Floor sites={all} robots={shown} onChange={() => void sites.reload()} />}
    </div>
  );
}

function Floor({ sites, robots, onChange }: { sites: readonly Site[]; robots: readonly Robot[]; onChange: () => void }) {
  const { query } = route.value;
  const planned = hasPlan(sites);
  const tab = query.map ?? (planned ? "plan" : "groups");
  const chosen = sites.find((site) => site.id === query.site) ?? null;
  const choose = (id: string) => setQuery({ site: id });
  return (
    <div class="floor">
      <div class="floor-map">
        <div class="floor-bar">
          {planned ? <Tabs label="Map" tabs={TABS} shown={tab} onShow={(map) => setQuery({ map })} /> : <span />}
          <Legend />
        </div>
        {tab === "plan" && planned ? (
          <Plan sites={sites} robots={robots} chosen={query.site ?? null} onChoose={choose} />
        ) : (
          <Groups sites={sites} chosen={query.site ?? null} onChoose={choose} />
        )}
        <Robots robots={robots} />
      </div>
      <section class="card side" aria-label="Chosen site">
        {chosen ? <SitePanel key={chosen.id} site={chosen} onChange={onChange} /> : <Empty icon="sites">Choose a site on the map to see its content, its owner and its past.</Empty>}
      </section>
    </div>
  );
}

function Legend() {
  return (
    <p class="legend">
      <span class="key" data-filled="false" /> empty
      <span class="key" data-filled="true" /> filled
      <Icon name="lock" size={14} /> locked by a run
      <Icon name="disabled" size={14} /> disabled
    </p>
  );
}

interface ChooseProps {
  chosen: string | null;
  onChoose: (id: string) => void;
}

function Groups({ sites, ...choose }: { sites: readonly Site[] } & ChooseProps) {
  const groups = useMemo(() => groupsOf(sites), [sites]);
  return (
    <div class="groups">
      {groups.map((group) => (
        <GroupCard key={group.name} group={group} {...choose} />
      ))}
    </div>
  );
}

function GroupCard({ group, ...choose }: { group: Group } & ChooseProps) {
  const { layout } = group;
  return (
    <Card class="group" title={group.name || "No group"} note={group.summary}>
      {layout.kind === "lanes"
        ? layout.lanes.map((lane) => <LaneRow key={lane.name} lane={lane} alone={layout.lanes.length === 1} {...choose} />)
        : layout.rows.map((row) => (
            <div class="grid-row" key={row[0]?.id}>
              {row.map((site) => (
                <Cell key={site.id} site={site} {...choose} />
              ))}
            </div>
          ))}
    </Card>
  );
}

/** A lane from its mouth inwards: what stands at the mouth is what can be taken. */
function LaneRow({ lane, alone, ...choose }: { lane: Lane; alone: boolean } & ChooseProps) {
  return (
    <div class="lane" role="group" aria-label={`Lane ${lane.name}, ${lane.mouths === 2 ? "two mouths: first in, first out" : "one mouth: last in, first out"}`}>
      {!alone && <span class="lane-name">{lane.name}</span>}
      <span class="mouth" title={lane.mouths === 2 ? "put in here" : "put in and take out here"}>
        {lane.mouths === 2 ? "in" : "in / out"}
      </span>
      <div class="lane-cells">
        {lane.sites.map((site) => (
          <Cell key={site.id} site={site} {...choose} />
        ))}
      </div>
      {lane.mouths === 2 ? (
        <span class="mouth" title="take out here">
          out
        </span>
      ) : (
        <span class="lane-end" title="closed end" />
      )}
    </div>
  );
}

function Cell({ site, chosen, onChoose }: { site: Site } & ChooseProps) {
  return (
    <button
      type="button"
      class="cell"
      data-site={site.id}
      data-filled={site.filled}
      data-locked={isLocked(site)}
      data-enabled={site.enabled}
      aria-pressed={site.id === chosen}
      aria-label={describeSite(site)}
      title={describeSite(site)}
      onClick={() => onChoose(site.id)}
    >
      <span class="cell-id">{site.id}</span>
      <span class="cell-line">
        <span class="cell-content">{site.filled ? (site.content ?? "filled") : "empty"}</span>
        {isLocked(site) && <Icon name="lock" size={14} />}
        {!site.enabled && <Icon name="disabled" size={14} />}
      </span>
    </button>
  );
}
