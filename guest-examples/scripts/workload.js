// A few seconds of what scripts do: objects, closures, strings, regular expressions, exceptions, generators,
// sorting, maps, big integers and typed arrays. Prints as it goes; the last line is a checksum of all of it.

let checksum = 2166136261;
function report(name, value) {
  const text = `${name}: ${value}`;
  for (let i = 0; i < text.length; i++) {
    checksum = Math.imul(checksum ^ text.charCodeAt(i), 16777619) >>> 0;
  }
  console.log(text);
}

// A random sequence of our own, so that every run does the same.
function makeRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

class Shape {
  constructor(name) { this.name = name; }
  area() { throw new Error(`${this.name} has no area`); }
}
class Rectangle extends Shape {
  constructor(width, height) { super("rectangle"); this.width = width; this.height = height; }
  area() { return this.width * this.height; }
}
class Circle extends Shape {
  constructor(radius) { super("circle"); this.radius = radius; }
  area() { return Math.round(Math.PI * this.radius ** 2); }
}

function shapes(count) {
  const random = makeRandom(1);
  let total = 0, refused = 0;
  for (let i = 0; i < count; i++) {
    const pick = Math.floor(random() * 3);
    const shape = pick === 0 ? new Rectangle(i % 17, i % 13) : pick === 1 ? new Circle(i % 11) : new Shape("point");
    try {
      total += shape.area();
    } catch (error) {
      refused += error.message.length;
    } finally {
      total %= 1000003;
    }
  }
  return `${total} ${refused}`;
}

function* primes() {
  const found = [];
  for (let n = 2; ; n++) {
    if (found.every((p) => p * p > n || n % p !== 0)) {
      found.push(n);
      yield n;
    }
  }
}

function sumOfPrimes(count) {
  let sum = 0;
  for (const p of primes()) {
    if (count-- === 0) break;
    sum += p;
  }
  return sum;
}

function words(count) {
  const random = makeRandom(7);
  const text = Array.from({ length: count }, () =>
    Array.from({ length: 2 + Math.floor(random() * 6) }, () => "aeioubcdfg"[Math.floor(random() * 10)]).join("")
  ).join(" ");
  const found = new Map();
  for (const match of text.matchAll(/\b([bcdfg])([aeiou]+)(\w*)\b/g)) {
    found.set(match[2], (found.get(match[2]) ?? 0) + match[3].length);
  }
  const top = [...found].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 5);
  return JSON.stringify(top) + text.replace(/[aeiou]+/g, (v) => v.length).length;
}

function queens(size) {
  const place = (row, columns, left, right) => {
    if (row === size) return 1;
    let count = 0;
    for (let c = 0; c < size; c++) {
      if (columns.has(c) || left.has(row + c) || right.has(row - c)) continue;
      columns.add(c); left.add(row + c); right.add(row - c);
      count += place(row + 1, columns, left, right);
      columns.delete(c); left.delete(row + c); right.delete(row - c);
    }
    return count;
  };
  return place(0, new Set(), new Set(), new Set());
}

function factorial(n) {
  let product = 1n;
  for (let i = 2n; i <= n; i++) product *= i;
  const digits = product.toString();
  return digits.length + ":" + [...digits].reduce((sum, d) => sum + Number(d), 0);
}

function life(size, rounds) {
  let cells = new Uint8Array(size * size).map((_, i) => (i * 7919) % 5 === 0 ? 1 : 0);
  for (let r = 0; r < rounds; r++) {
    const next = new Uint8Array(cells.length);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        let near = 0;
        for (let dy = -1; dy <= 1; dy++) {
          for (let dx = -1; dx <= 1; dx++) {
            if (dx || dy) near += cells[((y + dy + size) % size) * size + ((x + dx + size) % size)];
          }
        }
        next[y * size + x] = near === 3 || (near === 2 && cells[y * size + x]) ? 1 : 0;
      }
    }
    cells = next;
  }
  return cells.reduce((sum, c) => sum + c, 0);
}

report("shapes", shapes(150000));
report("primes", sumOfPrimes(5000));
report("words", words(60000));
report("queens", queens(8));
report("factorial", factorial(2500n));
report("life", life(64, 60));
report("sorted", (() => {
  const random = makeRandom(99);
  const numbers = Array.from({ length: 100000 }, () => Math.floor(random() * 1e9));
  numbers.sort((a, b) => a - b);
  return numbers.filter((_, i) => i % 20000 === 0).join(",");
})());
console.log("checksum " + checksum.toString(16).padStart(8, "0"));
