/**
 * Plots as SVG, readable on light and on dark paper: bars for how far beyond its bound each target
 * came, lines for what something costs as the work grows. A picture is text: no dependency draws it.
 */
import { formatNumber } from './table.ts'

export interface Bar {
  label: string
  /** Above 0. */
  value: number
}

interface Line {
  label: string
  /** Ascending in x; above 0 on an axis that is logarithmic. */
  points: readonly { x: number; y: number }[]
}

export interface LinePlot {
  title: string
  xLabel: string
  yLabel: string
  isXLogarithmic?: boolean
  isYLogarithmic?: boolean
  lines: readonly Line[]
}

const COLORS = ['#2f7ed8', '#d9662b', '#3a9d5d', '#a557c4', '#b58a00', '#d13b6e']
const STYLE = `<style>
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 14px; font-weight: 600 }
  .grid { stroke: #8888; stroke-width: 0.5 }
  .mark { stroke: #24292f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .mark { stroke: #e6edf3 } }
</style>`

const BAR_HEIGHT = 22
const LABEL_WIDTH = 330
const BARS_WIDTH = 430

/** Horizontal bars on a logarithmic axis, from the mark at 1: what is below it is red. */
export function plotBars(title: string, bars: readonly Bar[]): string {
  const axis = logarithmic([1, ...bars.map(({ value }) => value)])
  const at = (value: number): number => LABEL_WIDTH + axis.place(value) * BARS_WIDTH
  const top = 40
  const bottom = top + bars.length * BAR_HEIGHT
  const parts = axis.ticks.map((tick) => {
    const x = round(at(tick))
    return `${line(x, top, x, bottom, 'grid')}${text(x, bottom + 16, formatNumber(tick), 'middle')}`
  })
  bars.forEach(({ label, value }, row) => {
    const y = top + row * BAR_HEIGHT
    const [from, to] = [at(1), at(value)].sort((one, other) => one - other) as [number, number]
    const color = value >= 1 ? COLORS[2] : '#d1242f'
    parts.push(
      text(LABEL_WIDTH - 8, y + 15, label, 'end'),
      `<rect x="${round(from)}" y="${y + 4}" width="${round(Math.max(1, to - from))}" ` +
        `height="${BAR_HEIGHT - 8}" fill="${color}"/>`,
      text(round(to) + 5, y + 15, formatNumber(value), 'start'),
    )
  })
  parts.push(line(at(1), top - 4, at(1), bottom, 'mark'))
  const head = text(8, 20, title, 'start', 'title')
  return document(LABEL_WIDTH + BARS_WIDTH + 70, bottom + 28, [head, ...parts])
}

const PANEL_WIDTH = 520
const PANEL_HEIGHT = 300
const FRAME = { left: 70, right: 20, top: 36, bottom: 46 }
const LEGEND_HEIGHT = 18

/** One below the other. */
export function plotLines(plots: readonly LinePlot[]): string {
  const parts: string[] = []
  let top = 0
  for (const plot of plots) {
    parts.push(`<g transform="translate(0 ${top})">${drawPanel(plot).join('')}</g>`)
    top += PANEL_HEIGHT + plot.lines.length * LEGEND_HEIGHT + 20
  }
  return document(PANEL_WIDTH, top, parts)
}

function drawPanel(plot: LinePlot): string[] {
  const points = plot.lines.flatMap((each) => each.points)
  const xs = points.map(({ x }) => x)
  const ys = points.map(({ y }) => y)
  const xAxis = plot.isXLogarithmic ? logarithmic(xs) : linear(xs)
  const yAxis = plot.isYLogarithmic ? logarithmic(ys) : linear(ys)
  const { left, top } = FRAME
  const right = PANEL_WIDTH - FRAME.right
  const bottom = PANEL_HEIGHT - FRAME.bottom
  const atX = (value: number): number => round(left + xAxis.place(value) * (right - left))
  const atY = (value: number): number => round(bottom - yAxis.place(value) * (bottom - top))
  const parts = [text(8, 20, plot.title, 'start', 'title')]
  for (const tick of xAxis.ticks) {
    parts.push(line(atX(tick), top, atX(tick), bottom, 'grid'))
    parts.push(text(atX(tick), bottom + 16, formatNumber(tick), 'middle'))
  }
  for (const tick of yAxis.ticks) {
    parts.push(line(left, atY(tick), right, atY(tick), 'grid'))
    parts.push(text(left - 6, atY(tick) + 4, formatNumber(tick), 'end'))
  }
  parts.push(text((left + right) / 2, bottom + 36, plot.xLabel, 'middle'))
  const middle = (top + bottom) / 2
  parts.push(
    `<g transform="rotate(-90 14 ${middle})">${text(14, middle, plot.yLabel, 'middle')}</g>`,
  )
  plot.lines.forEach((each, order) => {
    const color = COLORS[order % COLORS.length] ?? '#888'
    const path = each.points.map(({ x, y }) => `${atX(x)},${atY(y)}`).join(' ')
    parts.push(`<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"/>`)
    for (const { x, y } of each.points)
      parts.push(`<circle cx="${atX(x)}" cy="${atY(y)}" r="3" fill="${color}"/>`)
    const y = PANEL_HEIGHT + order * LEGEND_HEIGHT
    parts.push(`<rect x="${left}" y="${y}" width="14" height="4" fill="${color}"/>`)
    parts.push(text(left + 20, y + 6, each.label, 'start'))
  })
  return parts
}

interface Axis {
  ticks: number[]
  /** From 0 at the lower to 1 at the upper end. */
  place(value: number): number
}

/** Between whole powers of ten, with 2 and 5 of each where the powers are few. */
function logarithmic(values: readonly number[]): Axis {
  const logs = values.map(Math.log10).filter(Number.isFinite)
  const from = Math.floor(Math.min(...logs))
  const to = Math.max(from + 1, Math.ceil(Math.max(...logs)))
  const steps = to - from <= 3 ? [1, 2, 5] : [1]
  const ticks: number[] = []
  for (let power = from; power < to; power++)
    for (const step of steps) ticks.push(step * 10 ** power)
  return {
    ticks: [...ticks, 10 ** to],
    place: (value) => (Math.log10(value) - from) / (to - from),
  }
}

/** From 0 to a round number. */
function linear(values: readonly number[]): Axis {
  const top = Math.max(...values, Number.MIN_VALUE)
  const power = 10 ** Math.floor(Math.log10(top))
  const step = ([0.2, 0.5, 1, 2].find((each) => top / (each * power) <= 6) ?? 2) * power
  const to = Math.ceil(top / step) * step
  const ticks = Array.from({ length: Math.round(to / step) + 1 }, (_, order) => order * step)
  return { ticks, place: (value) => value / to }
}

type Anchor = 'start' | 'middle' | 'end'

function text(x: number, y: number, content: string, anchor: Anchor, style?: string): string {
  const named = style === undefined ? '' : ` class="${style}"`
  return `<text x="${x}" y="${y}" text-anchor="${anchor}"${named}>${escapeXml(content)}</text>`
}

const line = (x1: number, y1: number, x2: number, y2: number, style: string): string =>
  `<line x1="${round(x1)}" y1="${y1}" x2="${round(x2)}" y2="${y2}" class="${style}"/>`

const escapeXml = (content: string): string =>
  content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

const round = (value: number): number => Math.round(value * 10) / 10

const document = (width: number, height: number, parts: readonly string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
  `viewBox="0 0 ${width} ${height}">\n${STYLE}\n${parts.join('\n')}\n</svg>\n`
