/** Migrations are sent one statement at a time: each file has to fall into statements, and no others. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { splitStatements } from '../../../src/storage/migrator.ts'

const MIGRATIONS = resolve(import.meta.dirname, '../../../migrations')
const files = readdirSync(MIGRATIONS).filter((name) => name.endsWith('.sql'))
const withoutComments = (text: string) => text.replace(/--.*/g, '').trim()

test('a semicolon in a comment, a text or the body of a function ends nothing', () => {
  const one = `-- a; b's\nselect 'a;''b', "c" -- d;\n  as e;`
  const two = `\ndo $$ begin -- f's\n  perform 1; perform ';'; end $$;`
  expect(splitStatements(`${one}${two}\n`)).toEqual([one, two])
})

describe.each(files)('%s', (name) => {
  const text = readFileSync(join(MIGRATIONS, name), 'utf8')
  const statements = splitStatements(text)

  test('is sent whole', () => {
    expect(text.startsWith(statements.join(''))).toBe(true)
    expect(withoutComments(text.slice(statements.join('').length))).toBe('')
  })

  test('each part is a statement', () => {
    for (const statement of statements)
      expect(withoutComments(statement)).toMatch(
        /^(?:alter|comment on|create|do|drop|insert|revoke|select|set local|truncate)\s/,
      )
  })
})

// What `popgres migrate` says to tables that are distributed already (docs/scaling.md).
test.each(files.filter((name) => name > '0017'))('%s asks nothing that Citus refuses', (name) => {
  const statements = splitStatements(readFileSync(join(MIGRATIONS, name), 'utf8'))
  const alter = statements.map(withoutComments).filter((each) => /^alter table\b/.test(each))
  expect(alter.filter((each) => /\balter column \w+ set \(/.test(each))).toEqual([])
  const constraints = alter.filter((each) => /\badd constraint\b/.test(each))
  expect(constraints.filter((each) => !/^alter table \w+\s+add constraint\b/.test(each))).toEqual(
    [],
  )
  expect(constraints.filter((each) => /,\s*(?:add|alter|drop)\s/.test(each))).toEqual([])
})
