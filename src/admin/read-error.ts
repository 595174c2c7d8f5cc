/**
 * Why a file could not be read, in words for the operator who named it. Errors of reading have a
 * `syscall`; whatever has none is no such error and goes on as it came.
 */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EISDIR: 'it is a directory, not a file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EFTYPE: 'it is no file',
  ELOOP: 'it is a link, and links are not followed',
}

/** @returns the reason; undefined if `error` does not come from reading a file */
export function describeReadError(error: unknown): string | undefined {
  const { code = '', syscall } = error as NodeJS.ErrnoException
  return syscall === undefined ? undefined : (REASONS[code] ?? `reading failed (${code})`)
}
