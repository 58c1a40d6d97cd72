// Adds as many jobs as the first argument says, as many at any time as the second, and tells what it took.

export async function addAll (add) {
  let left = Number(process.argv[2])
  const took = []
  async function caller () {
    while (left-- > 0) {
      const asked = performance.now()
      await add()
      took.push(performance.now() - asked)
    }
  }
  const began = performance.now()
  await Promise.all(Array.from({ length: Number(process.argv[3]) }, caller))
  console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000, took }))
}
