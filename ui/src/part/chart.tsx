/** Memory over time. The axis begins at zero: a flat line must look flat. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { bytes, time } from "../format";
import type { Sample } from "../slope";

interface ChartProps {
  samples: readonly Sample[];
  limitBytes: number | null;
  height: number;
  label: string;
}

export function MemoryChart({ samples, limitBytes, height, label }: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  useEffect(() => {
    const element = host.current as HTMLDivElement;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(element, height), columns(samples), element);
    };
    draw();
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    resize.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      resize.disconnect();
      scheme.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [height]);
  useEffect(() => {
    plot.current?.setData(columns(samples));
    const top = Math.max(1e6, ...samples.map(([, size]) => size)) * 1.25;
    // The limit is drawn when it is near enough to matter.
    plot.current?.setScale("y", { min: 0, max: limitBytes && limitBytes < 2 * top ? limitBytes * 1.05 : top });
  }, [samples, limitBytes]);
  return <div ref={host} class="chart" style={{ height: `${height}px` }} role="img" aria-label={label} />;
}

function columns(samples: readonly Sample[]): uPlot.AlignedData {
  return [samples.map(([at]) => at), samples.map(([, size]) => size)];
}

function optionsOf(element: HTMLElement, height: number): uPlot.Options {
  const color = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 }, font: "12px sans-serif" };
  return {
    width: element.clientWidth || 600,
    height,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { auto: false, range: (_plot, low, high) => [low ?? 0, high ?? 1e8] } },
    axes: [
      { ...axis, values: (_plot, at, _axis, _space, step) => at.map((second) => time(second, second).slice(0, step < 60 ? 8 : 5)), space: 70, size: 28 },
      { ...axis, values: (_plot, sizes) => sizes.map((size) => bytes(size).replace(".0 ", " ")), size: 64, space: 26 },
    ],
    series: [{}, { stroke: color("--accent"), width: 2, fill: color("--accent-soft"), points: { show: false } }],
    plugins: [readout()],
  };
}

/** The value under the pointer, written in the chart's corner. */
function readout(): uPlot.Plugin {
  const box = document.createElement("div");
  box.className = "chart-readout";
  return {
    hooks: {
      init: (plot) => plot.over.appendChild(box),
      setCursor: (plot) => {
        const at = plot.cursor.idx;
        const x = at == null ? null : plot.data[0][at];
        const y = at == null ? null : plot.data[1]?.[at];
        box.textContent = x == null || y == null ? "" : `${time(x, x)}  ${bytes(y)}`;
      },
    },
  };
}
