import Glibc
import LongspanKernels

/// Reads texts for models.
public enum TextFile {
  /// The whole text of a UTF-8 file.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with ``/LongspanKernels/LongspanError/Code/unreadableFile`` if it
  ///   cannot be read, and ``/LongspanKernels/LongspanError/Code/invalidText`` if it is empty or not UTF-8, naming the
  ///   offset of the first bad byte.
  public static func read(_ path: String) throws(LongspanError) -> String {
    let bytes = try bytes(of: path)
    guard !bytes.isEmpty else { throw LongspanError(.invalidText, "\(path): the file is empty") }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw LongspanError(.invalidText, "\(path): not UTF-8: bad byte at offset \(firstInvalidOffset(bytes))")
    }
    return text
  }

  private static func bytes(of path: String) throws(LongspanError) -> [UInt8] {
    func failure() -> LongspanError {
      LongspanError(.unreadableFile, "\(path): cannot be read: \(String(cString: strerror(errno)))")
    }
    guard let file = fopen(path, "rb") else { throw failure() }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = fread(&block, 1, block.count, file)
      bytes.append(contentsOf: block[..<count])
      if count < block.count {
        guard ferror(file) == 0 else { throw failure() }
        return bytes
      }
    }
  }

  private static func firstInvalidOffset(_ bytes: [UInt8]) -> Int {
    var decoder = UTF8()
    var iterator = bytes.makeIterator()
    var offset = 0
    while case .scalarValue(let scalar) = decoder.decode(&iterator) {
      offset += UTF8.width(scalar)
    }
    return offset
  }
}
