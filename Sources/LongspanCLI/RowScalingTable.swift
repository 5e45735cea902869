import LongspanMeasure

/// How products grow with their rows: the time of each number of rows over that of one, by kernel.
struct RowScalingTable {
  private let lines: [[String]]

  /// Of the rows of a run, those that differ in the dimension R alone and among which is R = 1.
  init(_ rows: [BenchmarkRow]) {
    var groups: [Group] = []
    for row in rows where row.shape["R"] != nil && row.shape["M"] != nil {
      let group = Group(row)
      if !groups.contains(group) { groups.append(group) }
    }
    let counts = Set(rows.compactMap { $0.shape["M"] == nil ? nil : $0.shape["R"] }).sorted()
    var lines: [[String]] = []
    for group in groups {
      let times = Dictionary(
        rows.filter { Group($0) == group }.compactMap { row in row.shape["R"].map { ($0, row.nsMin) } },
        uniquingKeysWith: min)
      guard let one = times[1], times.count > 1 else { continue }
      lines.append(
        [group.description, Cell.time(one)]
          + counts.dropFirst().map { count in times[count].map { Cell.number($0 / one) } ?? "-" })
    }
    if !lines.isEmpty {
      lines.insert(["time over that of 1 row", "R=1"] + counts.dropFirst().map { "R=\($0)" }, at: 0)
    }
    self.lines = lines
  }

  /// Prints nothing where nothing can be compared.
  func print() {
    guard !lines.isEmpty else { return }
    Swift.print()
    Cell.table(lines)
  }

  /// What is the same in rows that are compared.
  private struct Group: Equatable, CustomStringConvertible {
    let name: String
    let variant: String
    let threads: Int
    let shape: [String: Int]

    init(_ row: BenchmarkRow) {
      name = row.name
      variant = row.variant
      threads = row.threads
      shape = row.shape.filter { $0.key != "R" }
    }

    var description: String {
      let dimensions = shape.sorted { $0.key > $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
      return "\(name) \(dimensions), \(threads) thread\(threads == 1 ? "" : "s")"
    }
  }
}
