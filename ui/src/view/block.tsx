/** What one block of a run did: times, outputs, error, wait. */
import { now } from "../clock";
import { Badge } from "../part/badge";
import { Empty, Facts, JsonView } from "../part/panel";
import { Moment, Span } from "../part/time";
import { toRun, toSite } from "../route";
import { describeWait } from "../run";
import { nodeAt, type StepIndex } from "../tree";
import type { Json, Step, TreeNode } from "../type";

interface BlockPanelProps {
  path: string | null;
  root: TreeNode;
  steps: StepIndex;
}

export function BlockPanel({ path, root, steps }: BlockPanelProps) {
  if (path === null) return <Empty icon="definitions">Choose a block on the left to see its outputs, its error and its times.</Empty>;
  const node = nodeAt(root, path);
  const step = steps.get(path);
  if (!node && !step) return <Empty icon="definitions">This run has no block {path}.</Empty>;
  return (
    <div class="side-body">
      <h3 class="block-name">
        {step?.name || node?.name || `block ${path}`}
        {step && <Badge state={step.state} />}
      </h3>
      {step?.wait && step.state === "WAITING" && <p class="sentence">{describeWait(step.wait, now.value)}</p>}
      {step?.error && <p class="error-line">{step.error}</p>}
      <Facts
        items={[
          ["Type", node?.type ?? step?.type ?? "–"],
          ["Path", <span class="mono">{path}</span>],
          ["Attempt", step?.attempt ?? "–"],
          ["Started", <Moment at={step?.started_at} />],
          ["Ended", <Moment at={step?.ended_at} />],
          ["Took", <Span from={step?.started_at} to={step?.ended_at} />],
        ]}
      />
      {node?.remark && <p class="quiet">{node.remark}</p>}
      {step ? <Results step={step} /> : <p class="quiet">This block has not run.</p>}
    </div>
  );
}

function Results({ step }: { step: Step }) {
  const child = outputOf(step.outputs, "taskRecordId");
  const site = outputOf(step.outputs, "siteId");
  return (
    <>
      {child && (
        <p>
          <a href={toRun(child)}>Open the sub-task's run</a>
        </p>
      )}
      {site && (
        <p>
          <a href={toSite(site)}>Show site {site} on the map</a>
        </p>
      )}
      <h3>Outputs</h3>
      <JsonView value={step.outputs} label="the outputs" />
      {step.progress != null && (
        <>
          <h3>Progress</h3>
          <JsonView value={step.progress} label="the progress" />
        </>
      )}
    </>
  );
}

function outputOf(outputs: Json | undefined, name: string): string | null {
  if (outputs == null || typeof outputs !== "object" || Array.isArray(outputs)) return null;
  const found = outputs[name];
  return typeof found === "string" ? found : null;
}
