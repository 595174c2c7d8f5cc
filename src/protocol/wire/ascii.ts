/** Octets that the mail protocols are made of. */
export const CR = 0x0d
export const LF = 0x0a
export const DOT = 0x2e
export const SPACE = 0x20
export const NUL = 0x00
export const ASTERISK = 0x2a
export const EQUALS = 0x3d
