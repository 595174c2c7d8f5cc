import { expect, test } from 'vitest'
import { type LinePlot, plotBars, plotLines } from '../../../bench/report/plot.ts'

/** Coordinates of the circles, in the order drawn. */
const circlesOf = (svg: string): { x: number; y: number }[] =>
  [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => ({
    x: Number(x),
    y: Number(y),
  }))

const plot = (more: Partial<LinePlot>): LinePlot => ({
  title: 'cost',
  xLabel: 'messages',
  yLabel: 'ms',
  lines: [
    {
      label: 'LIST',
      points: [
        { x: 10, y: 1 },
        { x: 100, y: 2 },
        { x: 1000, y: 3 },
      ],
    },
  ],
  ...more,
})

test('a logarithmic axis puts powers at equal steps, a linear one values', () => {
  const [a, b, c] = circlesOf(plotLines([plot({ isXLogarithmic: true })]))
  expect((b?.x ?? 0) - (a?.x ?? 0)).toBeCloseTo((c?.x ?? 0) - (b?.x ?? 0), 0)
  expect((a?.y ?? 0) - (b?.y ?? 0)).toBeCloseTo((b?.y ?? 0) - (c?.y ?? 0), 0)
  const [first, second, third] = circlesOf(plotLines([plot({})]))
  const far = (third?.x ?? 0) - (second?.x ?? 0)
  expect(far / ((second?.x ?? 0) - (first?.x ?? 0))).toBeCloseTo(10, 0)
})

test('axes are labelled, a line named, and what is text cannot be markup', () => {
  const svg = plotLines([plot({ title: 'a < b & c' })])
  for (const part of ['>messages<', '>ms<', '>LIST<', 'a &lt; b &amp; c'])
    expect(svg).toContain(part)
})

test('every number of a picture is one, for a single point and for equal ones too', () => {
  const single = { label: 'one', points: [{ x: 5, y: 0.5 }] }
  for (const isYLogarithmic of [false, true])
    expect(plotLines([plot({ lines: [single], isYLogarithmic })])).not.toMatch(/NaN|Infinity/)
  expect(plotBars('none', [])).not.toMatch(/NaN|Infinity/)
})

test('bars begin at 1: to the right in green from there on, to the left in red', () => {
  const svg = plotBars('margins', [
    { label: 'reached', value: 2 },
    { label: 'missed', value: 0.5 },
  ])
  const bars = [...svg.matchAll(/<rect x="([\d.]+)" y="\d+" width="([\d.]+)".*fill="(.+)"/g)]
  const [reached, missed] = bars.map(([, x, width, color]) => ({
    from: Number(x),
    to: Number(x) + Number(width),
    color,
  }))
  expect(missed?.to).toBeCloseTo(reached?.from ?? 0, 0)
  expect(reached?.color).not.toBe(missed?.color)
  expect(svg).toContain('prefers-color-scheme: dark')
})
