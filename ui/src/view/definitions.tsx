/** Definitions: what can be run, what is in each, new ones, and the blocks they are made of. */
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { Icon } from "../part/icon";
import { Empty, PageHead, Tabs, Trouble } from "../part/panel";
import { Moment } from "../part/time";
import { useResource } from "../resource";
import { go, href, route, toDefinition } from "../route";
import { stream } from "../stream";
import { DefinitionPanel } from "./definition";
import { Palette } from "./palette";
import { Upload } from "./upload";
import { plural } from "../format";

const PAGE_SIZE = 100;
const TABS = [
  { id: "list", text: "Definitions" },
  { id: "upload", text: "Check or upload" },
  { id: "blocks", text: "Blocks" },
];

export function DefinitionsView() {
  const { path, query } = route.value;
  const tab = query.tab ?? "list";
  useEffect(() => stream.watch([]), []);
  return (
    <div class="view">
      <PageHead title="Definitions" note="What this server can run.">
        <Tabs label="Part" tabs={TABS} shown={tab} onShow={(next) => go(["definitions"], next === "list" ? {} : { tab: next })} />
      </PageHead>
      {tab === "upload" && <Upload />}
      {tab === "blocks" && <Palette />}
      {tab === "list" && <Library chosen={path[1] ?? null} />}
    </div>
  );
}

function Library({ chosen }: { chosen: string | null }) {
  const cursor = route.value.query.cursor ?? null;
  const definitions = useResource((abort) => api.definitions(cursor, PAGE_SIZE, abort), [cursor]);
  const page = definitions.data.value;
  return (
    <div class="split">
      <section class="card flush" aria-label="All definitions">
        {definitions.error.value && <Trouble error={definitions.error.value} onRetry={() => void definitions.reload()} />}
        {page?.items.length === 0 && (
          <Empty icon="definitions">
            There are none yet. <a href={href(["definitions"], { tab: "upload" })}>Upload one</a>
          </Empty>
        )}
        <ul class="list picks">
          {page?.items.map((info) => (
            <li key={info.id}>
              <a class="list-row" href={toDefinition(info.id)} aria-current={info.id === chosen ? "true" : undefined}>
                <Icon name={info.enabled ? "definitions" : "disabled"} />
                <span class="list-main">
                  <strong>{info.label || info.id}</strong>
                  <span class="quiet cut">{[info.id !== info.label && info.id, info.remark, !info.enabled && "disabled"].filter(Boolean).join(" · ")}</span>
                </span>
                <span class="quiet number">
                  v{info.version}
                  <br />
                  <Moment at={info.updated_at} />
                </span>
              </a>
            </li>
          ))}
        </ul>
        <footer class="pager">
          <span class="quiet">{page && plural(page.items.length, "definition")}</span>
          {page?.next && (
            <button type="button" onClick={() => go(["definitions"], { cursor: page.next })}>
              More
            </button>
          )}
        </footer>
      </section>
      <section class="card" aria-label="Chosen definition">
        {chosen === null ? (
          <Empty icon="definitions">Choose a definition to see its blocks and inputs.</Empty>
        ) : (
          <DefinitionPanel
            key={chosen}
            name={chosen}
            onGone={() => {
              go(["definitions"]);
              void definitions.reload();
            }}
          />
        )}
      </section>
    </div>
  );
}
