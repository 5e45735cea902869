import LongspanKernels

/// A position in the bytes of a GGUF file from which little-endian values are read, each checked against the
/// end of the file before it is touched.
struct GGUFCursor: ~Escapable {
  private let bytes: RawSpan
  private(set) var offset = 0
  /// The file's name, with which each error message begins.
  let fileName: String

  @_lifetime(copy bytes)
  init(_ bytes: RawSpan, fileName: String) {
    self.bytes = bytes
    self.fileName = fileName
  }

  /// The bytes between the position and the end of the file.
  var remaining: Int { bytes.byteCount - offset }

  /// Reads a fixed-width integer. `what` names it in the error message.
  mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>(
    _ type: Value.Type, _ what: @autoclosure () -> String
  ) throws(LongspanError) -> Value {
    try require(MemoryLayout<Value>.size, what())
    let value = bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self)
    offset += MemoryLayout<Value>.size
    return Value(littleEndian: value)
  }

  /// Reads a length-prefixed string. Bytes that are not UTF-8 become U+FFFD.
  mutating func string(_ what: @autoclosure () -> String) throws(LongspanError) -> String {
    let length = try integer(UInt64.self, "the length of \(what())")
    guard length <= UInt64(remaining) else {
      throw invalid("the length \(length) of \(what()) at byte \(offset - 8) goes past the end of the file")
    }
    let end = offset + Int(length)
    defer { offset = end }
    return bytes.extracting(offset..<end).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
  }

  /// Reads `count` fixed-width values into an array of `transform`'s results.
  ///
  /// The space is reserved only once the file is known to hold that many values.
  mutating func array<Value: FixedWidthInteger & BitwiseCopyable, Element>(
    of type: Value.Type, count: UInt64, _ what: @autoclosure () -> String, transform: (Value) -> Element?
  ) throws(LongspanError) -> [Element] {
    try requireCount(count, elementSize: MemoryLayout<Value>.size, what())
    var result: [Element] = []
    result.reserveCapacity(Int(count))
    for index in 0..<Int(count) {
      let raw = bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self)
      guard let element = transform(Value(littleEndian: raw)) else {
        throw invalid("element \(index) of \(what()) at byte \(offset) has the illegal value \(raw)")
      }
      result.append(element)
      offset += MemoryLayout<Value>.size
    }
    return result
  }

  /// Throws unless the file can hold `count` more elements of at least `elementSize` bytes.
  func requireCount(
    _ count: UInt64, elementSize: Int, _ what: @autoclosure () -> String
  ) throws(LongspanError) {
    guard count <= UInt64(remaining / elementSize) else {
      throw invalid(
        "\(what()) claims \(count) elements at byte \(offset), but the file has only \(remaining) bytes left")
    }
  }

  /// An error about the file's content.
  func invalid(_ message: String) -> LongspanError {
    LongspanError(.invalidFile, "\(fileName): \(message)")
  }

  private func require(_ count: Int, _ what: @autoclosure () -> String) throws(LongspanError) {
    guard count <= remaining else {
      throw invalid("the file ends at byte \(bytes.byteCount), inside \(what()) at byte \(offset)")
    }
  }
}
