import CFuzzer

/// Changes fields of a GGUF header: counts, lengths, types, extents, offsets and numbers. Bytes chosen at random would
/// nearly always fall into the spelling of some token.
struct GGUFMutator {
  private let bytes: UnsafeMutableBufferPointer<UInt8>
  private var offset = 0
  /// Where fields lie, and how many bytes they have.
  private var fields: [(offset: Int, width: Int)] = []

  /// Changes one to four fields of `bytes`. `seed` decides which and how.
  static func mutate(_ bytes: UnsafeMutableBufferPointer<UInt8>, seed: UInt32) {
    var mutator = GGUFMutator(bytes: bytes)
    mutator.findFields()
    guard !mutator.fields.isEmpty else { return }
    var random = UInt64(seed)
    for _ in 0...(seed % 4) {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let field = mutator.fields[Int(random >> 33) % mutator.fields.count]
      mutator.change(field, by: random)
    }
  }

  private init(bytes: UnsafeMutableBufferPointer<UInt8>) {
    self.bytes = bytes
  }

  private static let values: [UInt64] = [
    0, 1, 2, 3, 4, 7, 8, 9, 12, 14, 16, 31, 32, 33, 64, 255, 256, 257, 1 << 16, 1 << 20, 1 << 28,
    (1 << 31) - 1, 1 << 31,
    1 << 32, 1 << 40, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 63, .max, .max - 1, 0x7fc0_0000, 0x7f80_0000,
    0xff80_0000,
  ]

  private func change(_ field: (offset: Int, width: Int), by random: UInt64) {
    var value: UInt64 = 0
    for i in 0..<field.width { value |= UInt64(bytes[field.offset + i]) << UInt64(8 * i) }
    switch random >> 20 & 3 {
    case 0: value = Self.values[Int(random >> 24 & 0xFFFF) % Self.values.count]
    case 1: value = value &+ (random >> 24 & 15) &- 7
    case 2: value ^= 1 << (random >> 24 & 63)
    default: value = value &* (random >> 24 & 7)
    }
    for i in 0..<field.width { bytes[field.offset + i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * i)) }
  }

  // MARK: Finding fields

  private mutating func field(_ width: Int) -> Int? {
    guard offset + width <= bytes.count else { return nil }
    var value: UInt64 = 0
    for i in 0..<width { value |= UInt64(bytes[offset + i]) << UInt64(8 * i) }
    fields.append((offset, width))
    offset += width
    return Int(exactly: value)
  }

  private mutating func skip(_ count: Int) -> Bool {
    guard count <= bytes.count - offset else { return false }
    offset += count
    return true
  }

  private mutating func string() -> Bool {
    guard let length = field(8) else { return false }
    // the first byte is worth changing as well
    if length > 0, offset < bytes.count { fields.append((offset, 1)) }
    return skip(length)
  }

  private static let widths = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]

  private mutating func value(ofType type: Int) -> Bool {
    switch type {
    case 8: return string()
    case 9:
      guard let element = field(4), let count = field(8), element != 9, count <= bytes.count else {
        return false
      }
      for index in 0..<count {
        // a few elements of an array are as good as all
        guard element == 8 || index < 4 else {
          return Self.widths.indices.contains(element) && skip((count - index) * Self.widths[element])
        }
        let known = fields.count
        guard value(ofType: element) else { return false }
        if index >= 16 { fields.removeLast(fields.count - known) }
      }
      return true
    case 0..<Self.widths.count: return field(Self.widths[type]) != nil || Self.widths[type] == 8
    default: return false
    }
  }

  private mutating func findFields() {
    guard field(4) != nil, field(4) != nil, let tensors = field(8), let entries = field(8) else { return }
    for _ in 0..<entries {
      guard string(), let type = field(4), value(ofType: type) else { return }
    }
    for _ in 0..<tensors {
      guard string(), let rank = field(4), rank <= 8 else { return }
      for _ in 0..<rank where field(8) == nil { return }
      guard field(4) != nil, field(8) != nil else { return }
    }
  }
}
