/// The printable alphabet in which byte-level BPE vocabularies spell bytes (Radford et al. 2019, GPT-2).
///
/// Bytes that print in Latin-1 stand for themselves; the other 68 are the characters from U+0100 on, in
/// order. A space is therefore spelled "Ġ" and a line feed "Ċ".
enum ByteAlphabet {
  /// The byte that each of the alphabet's scalars spells, by scalar value; nil for values outside it.
  private static let bytes: [UInt8?] = {
    var table = [UInt8?](repeating: nil, count: 0x100 + 68)
    var next = 0x100
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF:
        table[Int(byte)] = byte
      default:
        table[next] = byte
        next += 1
      }
    }
    return table
  }()

  /// The bytes that `token` spells, or nil if it has a character outside the alphabet.
  static func decode(_ token: some StringProtocol) -> [UInt8]? {
    var result: [UInt8] = []
    result.reserveCapacity(token.utf8.count)
    for scalar in token.unicodeScalars {
      guard scalar.value < bytes.count, let byte = bytes[Int(scalar.value)] else { return nil }
      result.append(byte)
    }
    return result
  }
}
