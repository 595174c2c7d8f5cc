/**
 * RFC 4180 records out of a stream of text: fields separated by commas, quotes around what holds
 * commas, quotes ("" inside) or line ends. Both CRLF and LF end a record, a BOM is skipped, empty
 * lines are passed over. A record that breaks the rules is told by its line, and reading goes on
 * with the next one, so that one bad line of ten thousand does not stop an import.
 */
import { createReadStream } from 'node:fs'
import { describeReadError } from '../admin/read-error.ts'
import { refused } from '../admin/refusal.ts'

export type CsvRecord =
  | { line: number; fields: string[]; problem?: undefined }
  | { line: number; problem: string }

/** LIMIT: one record. A quote that nobody closes must not swallow a whole file into memory. */
const RECORD_MAX_LENGTH = 65_536

type State = 'field-start' | 'plain' | 'quoted' | 'quote-in-quoted' | 'broken'

class CsvReader {
  #state: State = 'field-start'
  #field = ''
  #fields: string[] = []
  #problem: string | undefined
  #length = 0
  #line = 1
  #recordLine = 1

  /** @returns a record, if `character` was the end of one */
  push(character: string): CsvRecord | undefined {
    this.#length += 1
    const isEnd = character === '\n' && this.#state !== 'quoted'
    if (isEnd) return this.#endRecord()
    if (character === '\n') this.#line += 1
    if (this.#length > RECORD_MAX_LENGTH && this.#state !== 'broken')
      this.#break(`is longer than ${RECORD_MAX_LENGTH} characters (is a quote never closed?)`)
    else this.#pushInRecord(character)
    return undefined
  }

  end(): CsvRecord | undefined {
    if (this.#state === 'quoted') this.#break('has a quote that is never closed')
    return this.#length === 0 ? undefined : this.#endRecord()
  }

  #pushInRecord(character: string): void {
    if (this.#state === 'broken') return
    if (this.#state === 'quoted') {
      if (character === '"') this.#state = 'quote-in-quoted'
      else this.#field += character
      return
    }
    if (character === ',') this.#endField()
    else if (character === '"' && this.#state === 'field-start') this.#state = 'quoted'
    else if (character === '"' && this.#state === 'quote-in-quoted') {
      this.#field += '"'
      this.#state = 'quoted'
    } else if (character === '"') this.#break('has a quote inside a field without quotes around it')
    else if (this.#state !== 'quote-in-quoted') {
      this.#field += character
      this.#state = 'plain'
    } else if (character !== '\r') this.#break('has text after a closing quote')
  }

  #endField(): void {
    this.#fields.push(this.#field)
    this.#field = ''
    this.#state = 'field-start'
  }

  #break(problem: string): void {
    this.#problem = problem
    this.#state = 'broken'
  }

  #endRecord(): CsvRecord | undefined {
    if (this.#state === 'plain') this.#field = this.#field.replace(/\r$/, '')
    this.#endField()
    const line = this.#recordLine
    const fields = this.#fields
    const problem = this.#problem
    this.#line += 1
    this.#recordLine = this.#line
    this.#fields = []
    this.#problem = undefined
    this.#length = 0
    if (problem !== undefined) return { line, problem }
    return fields.length === 1 && fields[0] === '' ? undefined : { line, fields }
  }
}

/** @param text chunks of decoded text, cut anywhere */
export async function* readCsv(text: AsyncIterable<string>): AsyncGenerator<CsvRecord> {
  const reader = new CsvReader()
  let isFirst = true
  for await (const chunk of text) {
    const part = isFirst ? chunk.replace(/^\ufeff/, '') : chunk
    isFirst &&= chunk === ''
    for (const character of part) {
      const record = reader.push(character)
      if (record !== undefined) yield record
    }
  }
  const last = reader.end()
  if (last !== undefined) yield last
}

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read */
export async function* readCsvFile(path: string): AsyncGenerator<CsvRecord> {
  const text: AsyncIterable<string> = createReadStream(path, { encoding: 'utf8' })
  try {
    yield* readCsv(text)
  } catch (error) {
    const reason = describeReadError(error)
    throw reason === undefined ? error : refused(`cannot read ${path}: ${reason}`, error)
  }
}
