/** Every prepared statement that the storage modules export, collected from the modules themselves. */
import { readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Statement } from '../../src/storage/postgres/database.ts'

const STORAGE = resolve(import.meta.dirname, '../../src/storage')

export async function collectStatements(): Promise<Statement[]> {
  const files = readdirSync(STORAGE, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort()
  const found = new Map<string, Statement>()
  for (const name of files) {
    const module: Record<string, unknown> = await import(join(STORAGE, name))
    for (const value of Object.values(module).filter(isStatement)) found.set(value.name, value)
  }
  return [...found.values()]
}

function isStatement(value: unknown): value is Statement {
  const { name, text } = Object(value)
  return typeof name === 'string' && typeof text === 'string'
}
