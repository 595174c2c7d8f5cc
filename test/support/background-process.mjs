/**
 * The background work of a node as a process of its own, from the build, with other times than a
 * node's: so a test can kill it and need not wait for half a minute.
 *
 *     node background-process.mjs TIMES     (JSON: BackgroundTimes)
 */
const [, , times = ''] = process.argv
/** @param {string} name @returns {Promise<any>} */
const built = (name) => import(new URL(`../../dist/${name}.js`, import.meta.url).href)
const { Background } = await built('cluster/background')
const { openLog } = await built('base/log')
const { Secret } = await built('base/secret')
const { openDatabase } = await built('storage/postgres/database')

const url = new Secret(process.env.DATABASE_URL)
const db = openDatabase({ url, applicationName: 'popgres test background', connectionsMax: 3 })
const background = new Background(db, openLog('info'), () => 12, JSON.parse(times))
const awake = setInterval(() => {}, 60_000)
process.once('SIGTERM', async () => {
  await background.stop()
  await db.close()
  clearInterval(awake)
})
background.start()
