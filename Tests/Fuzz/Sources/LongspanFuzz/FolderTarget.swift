import Glibc
import LongspanKernels
import LongspanModels

/// Opens what libFuzzer made as a model's folder, as transformers saves it, and runs it where it is one.
///
/// The bytes are the texts of config.json, of tokenizer.json and of the header of model.safetensors, and the number of zeros
/// behind that header, with a zero byte between one and the next. LSPAN_FUZZ_FOLDER names a folder to write to.
enum FolderTarget {
  private static let folder = getenv("LSPAN_FUZZ_FOLDER").map { String(cString: $0) } ?? "."

  static func run(_ bytes: [UInt8]) {
    let parts = bytes.split(separator: 0, maxSplits: 3, omittingEmptySubsequences: false).map { Array($0) }
    guard parts.count == 4 else { return }
    let zeros = Int(String(decoding: parts[3].prefix(9), as: UTF8.self)) ?? 0
    write(parts[0], "config.json")
    write(parts[1], "tokenizer.json")
    let length = withUnsafeBytes(of: UInt64(parts[2].count).littleEndian) { Array($0) }
    write(length + parts[2], "model.safetensors", zeros: max(0, min(zeros, 1 << 20)))
    do throws(LongspanError) {
      let model = try ModelRun.load(folder)
      TokenizerTarget.roundTrip("Hello, wörld! 12 <|im_end|>\n", model.tokenizer, spellsAll: false)
      try ModelRun.read(model)
    } catch {
      ModelRun.check(error)
    }
  }

  private static func write(_ bytes: [UInt8], _ name: String, zeros: Int = 0) {
    let descriptor = open("\(folder)/\(name)", O_CREAT | O_TRUNC | O_WRONLY, 0o600)
    guard descriptor >= 0, Glibc.write(descriptor, bytes, bytes.count) == bytes.count,
      ftruncate(descriptor, bytes.count + zeros) == 0
    else { fatalError("\(folder)/\(name) cannot be written") }
    close(descriptor)
  }
}
