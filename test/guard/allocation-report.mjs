/**
 * Loaded into a node before its program: at SIGUSR2 its log says how many octets the process has
 * allocated and not given back. See allocations.test.ts.
 */
import { PerformanceObserver } from 'node:perf_hooks'

let collections = 0
new PerformanceObserver((list) => {
  collections += list.getEntries().length
}).observe({ entryTypes: ['gc'] })

process.on('SIGUSR2', () => {
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  const record = { msg: 'allocations', pid: process.pid, heapUsed, arrayBuffers, collections }
  process.stdout.write(`${JSON.stringify(record)}\n`)
})
