/** Whether a plan would go to one server, if the tables lay on several (storage/postgres/citus.ts). */
import { DISTRIBUTED_TABLES } from '../../src/storage/postgres/citus.ts'

/** As EXPLAIN and auto_explain have it, both with VERBOSE and FORMAT JSON. */
export interface PlanNode {
  'Node Type': string
  'Parent Relationship'?: string
  Operation?: string
  'Relation Name'?: string
  'Index Cond'?: string
  'Recheck Cond'?: string
  Filter?: string
  Output?: string[]
  Plans?: PlanNode[]
}

const distributed: readonly string[] = DISTRIBUTED_TABLES
const NAMES_DOMAIN = /\bdomain_id = \$\d+/

/** Itself first. */
export function nodesBelow(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(nodesBelow)]
}

/** The distributed table that it looks into or writes, if any. */
export function distributedTable(node: PlanNode): string | undefined {
  // A partition is where its table is.
  const table = node['Relation Name']?.replace(/^(session_log)_(\d{4}_\d\d|default)$/, '$1')
  return table !== undefined && distributed.includes(table) ? table : undefined
}

/** What of a plan would not go to one shard; nothing: it would. */
export function strayNodes(nodes: readonly PlanNode[]): string[] {
  const stray: string[] = []
  for (const node of nodes) {
    const table = distributedTable(node)
    if (table === undefined) continue
    const type = node['Node Type']
    if (/Scan/.test(type)) {
      const conditions = [node['Index Cond'], node['Recheck Cond'], node.Filter]
      if (!conditions.some((condition) => NAMES_DOMAIN.test(condition ?? '')))
        stray.push(`${type} of ${table}`)
    }
    // The first column of each is domain_id; a column of that name comes from a look as above.
    const rows = node.Plans?.find((plan) => plan['Parent Relationship'] === 'Outer')
    const first = rows?.Output?.[0] ?? ''
    if (node.Operation === 'Insert' && !/^\(?\$\d+\)?(::integer)?$|\bdomain_id$/.test(first))
      stray.push(`insert into ${table} of ${first}`)
  }
  return stray
}

/**
 * Citus sends what an arm has found to every server, whichever is away, unless it sees by a row of
 * a table where all of the INSERT goes: ownerSql of storage/postgres/holders.ts.
 */
export function insertsOfOtherArm(text: string): boolean {
  return /^with [\s\S]*\binsert into \w+(?: as \w+)? \([^)]*\)\s+select (?!o\.domain_id)/.test(text)
}

/** The functions that RETURNING calls, in any arm of a statement. */
export function calledByReturning(text: string): string[] {
  const said = [...text.matchAll(/\breturning\b([\s\S]*?)(?=\n\s*\)|$)/g)]
  return said.flatMap(([, list = '']) =>
    [...list.matchAll(/\b([a-z_]+)\(/g)].map(([, name = '']) => name),
  )
}

/** SQL: `proname` of what PostgreSQL has that may answer differently elsewhere or later. */
export const MUTABLE_FUNCTIONS = `select distinct proname from pg_proc
  where provolatile <> 'i' and pronamespace = 'pg_catalog'::regnamespace
    and proname not in (select proname from pg_proc where provolatile = 'i')`
