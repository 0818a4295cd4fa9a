/** A small line of the past, between its least and greatest value; what never changed lies at the bottom. */
export function Spark({ values, label }: { values: readonly number[]; label: string }) {
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(19 - (18 * (value - low)) / span).toFixed(1)}`).join(" ");
  return (
    <svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label={label}>
      <polyline points={values.length > 1 ? points : "0,19 100,19"} />
    </svg>
  );
}
