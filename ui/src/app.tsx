/** The frame around every view: navigation, whether what you see is live, and the place for dialogs. */
import { useEffect, useRef } from "preact/hooks";
import { age, count } from "./format";
import { Hosts } from "./part/host";
import { Icon, type IconName } from "./part/icon";
import { href, route } from "./route";
import { info, pulse, readiness, startedAt } from "./status";
import { stream } from "./stream";
import { now } from "./clock";
import { DefinitionsView } from "./view/definitions";
import { GatewayView } from "./view/gateway";
import { GuardView } from "./view/guard";
import { LedgerView } from "./view/ledger";
import { MemoryView } from "./view/memory";
import { OverviewView } from "./view/overview";
import { RunView } from "./view/run";
import { RunsView } from "./view/runs";
import { SitesView } from "./view/sites";
import { TriggersView } from "./view/triggers";

const PLACES: { path: string; text: string; icon: IconName }[] = [
  { path: "", text: "Overview", icon: "overview" },
  { path: "runs", text: "Runs", icon: "runs" },
  { path: "sites", text: "Sites", icon: "sites" },
  { path: "definitions", text: "Definitions", icon: "definitions" },
  { path: "triggers", text: "Triggers", icon: "triggers" },
  { path: "ledger", text: "Ledger", icon: "ledger" },
  { path: "memory", text: "Memory", icon: "memory" },
  { path: "guard", text: "Guard", icon: "guard" },
  { path: "gateway", text: "Gateway", icon: "gateway" },
];

export function App() {
  return (
    <>
      <a class="skip" href="#main" onClick={focusMain}>
        Skip to the content
      </a>
      <div class="frame">
        <Navigation />
        <main id="main" tabIndex={-1}>
          <View />
        </main>
      </div>
      <Hosts />
    </>
  );
}

function focusMain(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Navigation() {
  const here = route.value.path[0] ?? "";
  return (
    <nav class="nav" aria-label="Views">
      <a class="brand" href={href([])}>
        <img src="./icon.svg" alt="" width="28" height="28" />
        <span>Flatwater</span>
      </a>
      <ul>
        {PLACES.filter((place) => place.path !== "gateway" || info.value?.gateway).map((place) => (
          <li key={place.path}>
            <a href={href([place.path].filter(Boolean))} aria-current={place.path === here ? "page" : undefined}>
              <Icon name={place.icon} size={18} />
              <span>{place.text}</span>
              {place.path === "runs" && pulse.value && <small title="active runs">{count(pulse.value.active)}</small>}
            </a>
          </li>
        ))}
      </ul>
      <Link />
    </nav>
  );
}

const LINK_TEXT = { live: "Live", connecting: "Connecting…", retrying: "No connection, trying again…" };

function Link() {
  const link = stream.link.value;
  const ready = readiness.data.value;
  const trouble = link === "live" && ready && !ready.ready;
  return (
    <div class="link">
      <p class="link-state" data-link={trouble ? "degraded" : link} role="status">
        <span class="dot" aria-hidden="true" />
        {trouble ? "Not ready" : LINK_TEXT[link]}
      </p>
      <p class="quiet">
        {info.value ? `Version ${info.value.version}` : ""}
        {info.value?.demo && " · demo plant"}
        <br />
        {startedAt.value !== null && `up ${age(now.value - startedAt.value)}`}
      </p>
    </div>
  );
}

function View() {
  const { path } = route.value;
  const [place = "", name] = path;
  const last = useRef("");
  const key = name !== undefined && place === "runs" ? `runs/${name}` : place;
  useEffect(() => {
    // After a change of view the reader starts at its beginning; on the first load the browser's own start is right.
    if (last.current !== "" && last.current !== key) document.getElementById("main")?.focus({ preventScroll: true });
    if (last.current !== key) scrollTo(0, 0);
    last.current = key || "/";
  }, [key]);
  if (place === "") return <OverviewView />;
  if (place === "runs") return name === undefined ? <RunsView /> : <RunView key={name} id={name} />;
  if (place === "sites") return <SitesView />;
  if (place === "definitions") return <DefinitionsView />;
  if (place === "triggers") return <TriggersView />;
  if (place === "ledger") return <LedgerView />;
  if (place === "memory") return <MemoryView />;
  if (place === "guard") return <GuardView />;
  if (place === "gateway") return <GatewayView />;
  return (
    <div class="view">
      <h1>No such page</h1>
      <p>
        <a href={href([])}>Go to the overview</a>
      </p>
    </div>
  );
}
