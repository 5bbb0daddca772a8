# Some seconds of what scripts do: objects, blocks, exceptions, generators, symbols, strings, regular expressions,
# big integers, hashes and sorting. Prints as it goes; the last line is a checksum of all of it.

$stdout.sync = true
$checksum = 2_166_136_261

def report(name, value)
  line = "#{name}: #{value}"
  line.each_byte { |byte| $checksum = (($checksum ^ byte) * 16_777_619) & 0xffff_ffff }
  puts line
end

class Node
  include Comparable
  attr_reader :key, :left, :right

  def initialize(key)
    @key = key
  end

  def <=>(other)
    key <=> other.key
  end

  def insert(node)
    raise ArgumentError, "#{node.key} is there already" if node == self

    if node < self
      @left ? @left.insert(node) : @left = node
    else
      @right ? @right.insert(node) : @right = node
    end
  end

  def each(&block)
    @left&.each(&block)
    block.call(key)
    @right&.each(&block)
  end
end

def tree(count)
  random = Random.new(1)
  root = Node.new(500_000)
  refused = 0
  count.times do
    root.insert(Node.new(random.rand(1_000_000)))
  rescue ArgumentError => error
    refused += error.message.length
  end
  sum = 0
  root.each { |key| sum = (sum * 31 + key) % 1_000_003 }
  "#{sum} #{refused}"
end

def primes
  Enumerator.new do |found|
    seen = []
    (2..).each do |n|
      next if seen.any? { |p| break false if p * p > n; (n % p).zero? }

      seen << n
      found << n
    end
  end
end

def words(count)
  random = Random.new(2)
  text = Array.new(count) { Array.new(2 + random.rand(6)) { "aeioubcdfg"[random.rand(10)] }.join }.join(" ")
  counts = Hash.new(0)
  text.scan(/\b([bcdfg])([aeiou]+)(\w*)\b/) { |_, vowels, rest| counts[vowels.to_sym] += rest.size }
  counts.sort_by { |vowels, n| [-n, vowels] }.first(5).inspect
end

def factorial(n)
  (1..n).inject(:*).to_s.then { |digits| "#{digits.size}:#{digits.each_char.sum(&:to_i)}" }
end

def hanoi(n, from, to, via)
  return 0 if n.zero?

  hanoi(n - 1, from, via, to) + 1 + hanoi(n - 1, via, to, from)
end

report("tree", tree(15_000))
report("primes", primes.lazy.reject { |p| p % 10 == 3 }.first(1_500).sum)
report("words", words(15_000))
report("factorial", factorial(1_200))
report("hanoi", hanoi(16, :a, :b, :c))
report("caught", catch(:found) { 1.step { |i| throw :found, i if (i**3) % 7919 == 17 || i > 100_000 } })
report("sorted", Array.new(20_000) { |i| (i * 7_919) % 1_000_003 }.sort_by { |n| n.to_s.reverse }.each_slice(5_000).map(&:first).inspect)
puts format("checksum %08x", $checksum)
