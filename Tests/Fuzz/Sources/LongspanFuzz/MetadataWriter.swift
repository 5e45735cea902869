/// Writes GGUF files that hold metadata alone.
struct MetadataWriter {
  private var entries: [[UInt8]] = []

  mutating func add(_ key: String, _ value: String) {
    entries.append(Self.string(key) + Self.little(UInt32(8)) + Self.string(value))
  }

  mutating func add(_ key: String, _ value: Int32) {
    entries.append(Self.string(key) + Self.little(UInt32(5)) + Self.little(value))
  }

  mutating func add(_ key: String, _ values: [String]) {
    var entry =
      Self.string(key) + Self.little(UInt32(9)) + Self.little(UInt32(8)) + Self.little(UInt64(values.count))
    for value in values { entry += Self.string(value) }
    entries.append(entry)
  }

  mutating func add(_ key: String, _ values: [Int32]) {
    var entry =
      Self.string(key) + Self.little(UInt32(9)) + Self.little(UInt32(5)) + Self.little(UInt64(values.count))
    for value in values { entry += Self.little(value) }
    entries.append(entry)
  }

  func file() -> [UInt8] {
    Array("GGUF".utf8) + Self.little(UInt32(3)) + Self.little(UInt64(0)) + Self.little(UInt64(entries.count))
      + entries.joined()
  }

  private static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  private static func string(_ text: String) -> [UInt8] {
    little(UInt64(text.utf8.count)) + Array(text.utf8)
  }
}

/// How byte-level vocabularies spell bytes (Radford et al. 2019, GPT-2).
enum ByteSpelling {
  private static let characters: [String] = {
    var next: UInt32 = 0x100
    return (UInt32(0)...255).map { byte in
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return String(UnicodeScalar(UInt8(byte)))
      default:
        defer { next += 1 }
        return UnicodeScalar(next).map { String($0) } ?? ""
      }
    }
  }()

  static func character(_ byte: UInt8) -> String { characters[Int(byte)] }
}
