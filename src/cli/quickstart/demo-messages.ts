/**
 * The mail of the demo user: each message shows something that a mail store has to get right.
 * Written with CRLF line ends, as they would come from a mail system; 8-bit text as UTF-8.
 */

export interface DemoMessage {
  sender: string
  content: Buffer
  receivedAt: Date
}

const HOUR_MS = 3_600_000

/** @returns oldest first, spread over the days before `now` */
export function makeDemoMessages(recipient: string, now: Date): DemoMessage[] {
  const makers = [welcome, dotted, accented, report, minutes]
  return makers.map((make, index) => {
    const receivedAt = new Date(now.getTime() - (makers.length - index) * 7 * HOUR_MS)
    const { from, sender, lines } = make()
    const header = [
      `Date: ${receivedAt.toUTCString().replace('GMT', '+0000')}`,
      `From: ${from}`,
      `To: Demo User <${recipient}>`,
      `Message-ID: <demo-${index + 1}.${receivedAt.getTime()}@${sender.split('@')[1]}>`,
    ]
    const content = Buffer.from(`${[...header, ...lines].join('\r\n')}\r\n`, 'utf8')
    return { sender, content, receivedAt }
  })
}

interface Draft {
  from: string
  sender: string
  /** The rest of the header, an empty line, the body. */
  lines: string[]
}

/** Plain text, nothing special. */
function welcome(): Draft {
  return {
    from: 'Popgres <postmaster@example.test>',
    sender: 'postmaster@example.test',
    lines: [
      'Subject: Welcome to Popgres',
      'MIME-Version: 1.0',
      'Content-Type: text/plain; charset=us-ascii',
      '',
      'Hello,',
      '',
      'this maildrop is rows in PostgreSQL. What you see here came in the way all',
      'mail does, and leaves by POP3, octet for octet.',
      '',
      'Delete a message (DELE), end with QUIT, and it is gone from your maildrop;',
      'end in any other way, and it is still there.',
      '',
      '-- ',
      'Popgres',
    ],
  }
}

/** Lines that begin with dots: on the wire each gets one more (RFC 1939 §3). */
function dotted(): Draft {
  return {
    from: 'Marie Lefevre <marie@example.net>',
    sender: 'marie@example.net',
    lines: [
      'Subject: .htaccess, .profile and other dots',
      'MIME-Version: 1.0',
      'Content-Type: text/plain; charset=us-ascii',
      '',
      '.htaccess is the first line here, and the next one is a dot alone:',
      '.',
      '..profile begins with two',
      '.....and this with five.',
      'A dot at the end of a line is harmless.',
      '.',
    ],
  }
}

/** 8-bit text, as it is written in most of the world. */
function accented(): Draft {
  return {
    from: '=?utf-8?q?J=C3=BCrgen_M=C3=BCller?= <juergen@example.net>',
    sender: 'juergen@example.net',
    lines: [
      'Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4g4oCTIOOBk+OCk+OBq+OBoeOBrw==?=',
      'MIME-Version: 1.0',
      'Content-Type: text/plain; charset=utf-8',
      'Content-Transfer-Encoding: 8bit',
      '',
      'Schöne Grüße aus Köln!',
      'Ça va? Ñandú, œuvre, čeština, Ελλάδα, Привет, שלום, こんにちは.',
      '20 € – und ein Emoji: 📬',
    ],
  }
}

/** Text, HTML and an attachment. */
function report(): Draft {
  const csv = ['month,messages,octets', '2026-01,1204,88120332', '2026-02,1377,90412876', '']
  const attachment = Buffer.from(csv.join('\r\n')).toString('base64')
  return {
    from: 'Accounting <accounting@example.net>',
    sender: 'accounting@example.net',
    lines: [
      'Subject: Mail volume, with a table attached',
      'MIME-Version: 1.0',
      'Content-Type: multipart/mixed; boundary="outer-7d1"',
      '',
      'This is a message in MIME format.',
      '--outer-7d1',
      'Content-Type: multipart/alternative; boundary="inner-7d1"',
      '',
      '--inner-7d1',
      'Content-Type: text/plain; charset=utf-8',
      '',
      'The table for this year is attached.',
      '--inner-7d1',
      'Content-Type: text/html; charset=utf-8',
      'Content-Transfer-Encoding: quoted-printable',
      '',
      '<html><body style=3D"font-family:sans-serif">',
      '<p>The table for this year is <b>attached</b>.</p>',
      '</body></html>',
      '--inner-7d1--',
      '--outer-7d1',
      'Content-Type: text/csv; name="volume.csv"',
      'Content-Disposition: attachment; filename="volume.csv"',
      'Content-Transfer-Encoding: base64',
      '',
      ...(attachment.match(/.{1,76}/g) ?? []),
      '--outer-7d1--',
    ],
  }
}

/** Longer than one packet, and than what a client shows at once. */
function minutes(): Draft {
  const items = Array.from({ length: 400 }, (_, index) => [
    `${index + 1}. Agenda item ${index + 1}`,
    '   It was discussed and adopted without a vote. Nobody asked for the floor.',
    '',
  ])
  return {
    from: 'The secretary <secretary@example.net>',
    sender: 'secretary@example.net',
    lines: [
      'Subject: Minutes of a long meeting',
      'MIME-Version: 1.0',
      'Content-Type: text/plain; charset=us-ascii',
      '',
      ...items.flat(),
      'The meeting was closed.',
    ],
  }
}
