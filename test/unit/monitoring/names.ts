/** What the node tells Prometheus, and what a PromQL expression asks for. */
import { METRICS, PER_WORKER } from '../../../src/base/metrics.ts'

/** Labels by name of the series: of a histogram, those that it is told as. */
const SERIES = new Map<string, readonly string[]>()
for (const { name, type, labelNames } of Object.values(METRICS)) {
  const labels = [...(name.startsWith(PER_WORKER) ? ['worker'] : []), ...labelNames]
  if (type !== 'histogram') SERIES.set(name, labels)
  else
    SERIES.set(`${name}_bucket`, [...labels, 'le'])
      .set(`${name}_sum`, labels)
      .set(`${name}_count`, labels)
}

/** Those that Prometheus adds to all of a target. */
const OF_TARGET = ['instance', 'job']

/** Series and labels of `expression` that no node tells. */
export function unknownIn(expression: string): string[] {
  const selectors = [...expression.matchAll(/\b(popgres_\w+)\s*(?:\{([^}]*)\})?/g)]
  return selectors.flatMap(([, name = '', matchers = '']) => {
    const labels = SERIES.get(name)
    if (labels === undefined) return [name]
    return [...matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)]
      .map(([, label = '']) => label)
      .filter((label) => !labels.includes(label) && !OF_TARGET.includes(label))
      .map((label) => `${name}{${label}}`)
  })
}
