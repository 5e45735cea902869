/// Draws choices from the bytes that libFuzzer made up; zeros when they have run out.
struct FuzzInput {
  private let bytes: [UInt8]
  private var offset = 0

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
  }

  var isEmpty: Bool { offset >= bytes.count }

  mutating func byte() -> UInt8 {
    guard offset < bytes.count else { return 0 }
    defer { offset += 1 }
    return bytes[offset]
  }

  /// A number in 0 ..< `bound`.
  mutating func number(below bound: Int) -> Int {
    guard bound > 1 else { return 0 }
    let value = bound <= 256 ? Int(byte()) : Int(byte()) << 8 | Int(byte())
    return value % bound
  }

  /// True once in `count`, and not when the bytes have run out.
  mutating func once(in count: Int) -> Bool {
    !isEmpty && number(below: count) == count - 1
  }

  mutating func take(_ count: Int) -> [UInt8] {
    let end = min(bytes.count, offset + count)
    defer { offset = end }
    return Array(bytes[offset..<end])
  }

  mutating func rest() -> [UInt8] {
    take(bytes.count)
  }
}

/// Ends the process, as a finding.
func fail(_ what: String) -> Never {
  fatalError("FINDING: \(what)")
}
