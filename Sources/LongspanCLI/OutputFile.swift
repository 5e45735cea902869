import Foundation
import LongspanKernels

/// A text file that a command writes.
enum OutputFile {
  /// Throws if the file surely cannot be written, before the work that makes its content.
  static func require(_ path: String) throws(LongspanError) {
    let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
    var isFolder: ObjCBool = false
    let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
    guard !(exists && isFolder.boolValue), FileManager.default.isWritableFile(atPath: folder) else {
      throw LongspanError(.unwritableFile, "\(path): cannot be written")
    }
  }

  static func write(_ text: String, to path: String) throws(LongspanError) {
    do {
      try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    } catch {
      throw LongspanError(.unwritableFile, "\(path): cannot be written: \(error.localizedDescription)")
    }
  }
}

extension String {
  /// With the characters that mean something in XML replaced.
  var escapedForXML: String {
    replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
  }
}
